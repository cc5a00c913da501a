// What the pages need beyond the theme. It runs on every page, from a server and from the disk.

// Opened from the disk a page may not fetch its neighbours, so search results come without an excerpt.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

// A box that scrolls sideways must be reachable from the keyboard, and one that does not must be no tab stop. A formula
// in the text cannot break: where it is wider than its paragraph, it becomes a box that scrolls. What is far from the
// window has not been laid out; it is looked at a little at a time, when the browser has nothing else to do.
window.addEventListener("load", () => {
  const article = document.querySelector(".bd-article");
  if (!article) return;  // the page of search
  const boxes = [...document.querySelectorAll(".bd-article :is(div.math, .map, pre)")];
  const formulas = [...document.querySelectorAll(".bd-article span.math")];
  const reachable = (box, scrolls) => {
    if (scrolls) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  };
  const update = (box) => reachable(box, box.scrollWidth > box.clientWidth);
  const fit = (formula) => {
    const drawn = formula.firstElementChild, room = formula.closest("p, li, dd, td, th, figcaption, div");
    const wide = drawn !== null && drawn.getBoundingClientRect().width > room.clientWidth;
    formula.classList.toggle("wide", wide);
    reachable(formula, wide);
  };
  const idle = window.requestIdleCallback ?? ((work) => setTimeout(() => work({timeRemaining: () => 8}), 30));
  let left = [], waiting = false;
  const look = (deadline) => {
    do {
      const node = left.shift();
      if (node) (node.matches("span") ? fit : update)(node);
    } while (left.length && deadline.timeRemaining() > 4);
    waiting = left.length > 0;
    if (waiting) idle(look);
    else article.dataset.looked = "";
  };
  const lookAgain = () => {
    delete article.dataset.looked;
    left = [...formulas, ...boxes];
    if (!waiting) idle(look);
    waiting = true;
  };
  // Code changes its size also as it is unfolded, or comes back from paper.
  const observer = new ResizeObserver((entries) => entries.forEach((entry) => update(entry.target)));
  boxes.forEach((box) => observer.observe(box));
  let width = 0;
  new ResizeObserver(([{contentRect}]) => {
    if (contentRect.width !== width) lookAgain();
    width = contentRect.width;
  }).observe(article);
});

// The emblem on the front page: every position was computed when the site was built.
document.querySelectorAll("figure.emblem").forEach((figure) => {
  const frames = JSON.parse(figure.dataset.frames), slider = figure.querySelector("input");
  const values = slider.dataset.values.split(" ");
  slider.addEventListener("input", () => {
    figure.querySelector(".bell").setAttribute("d", frames.paths[slider.value]);
    figure.querySelector(".told").textContent = frames.told[slider.value];
    figure.querySelector("output").textContent = values[slider.value];
    slider.setAttribute("aria-valuetext", values[slider.value]);
  });
});

// The claims page says how many cards the chosen verdict and chapter leave; the style sheet alone shows and hides them.
window.addEventListener("load", () => {
  const output = document.querySelector("output.shown"), cards = document.querySelectorAll("section.claim");
  const count = () => {
    const shown = [...cards].filter((card) => card.checkVisibility()).length;
    output.textContent = shown ? `${shown} of ${cards.length} claims shown.` : "No claim of this chapter has this verdict.";
  };
  if (output) {
    count();
    document.querySelectorAll("fieldset.choose").forEach((fieldset) => fieldset.addEventListener("change", count));
  }
});

// Paper is white: a page read in the dark is printed in the light theme.
const root = document.documentElement;
let shown;
window.addEventListener("beforeprint", () => { shown = root.dataset.theme; root.dataset.theme = "light"; });
window.addEventListener("afterprint", () => { root.dataset.theme = shown; });

// A report of a mistake that is begun beside the text says where the reader is: the last section, and the last cell of
// code, figure or claim, that begins above the middle of the window.
document.querySelectorAll("a.report.here").forEach((link) => {
  const begun = link.href;
  link.addEventListener("click", () => {
    const above = (selector) => [...document.querySelectorAll(`.bd-article ${selector}`)]
      .filter((element) => element.checkVisibility() && element.getBoundingClientRect().top < innerHeight / 2).at(-1);
    const section = above(":is(h1, h2, h3)"), cell = above(".cell");
    const inside = cell && (section.compareDocumentPosition(cell) & Node.DOCUMENT_POSITION_FOLLOWING);
    const told = [`section "${section.firstChild.textContent}"`];
    if (inside) {
      const named = cell.textContent.match(/(Figure|Claim) \d+\.\d+/), code = cell.querySelector("pre")?.textContent;
      told.push(named ? named[0] : "", code ? `cell that begins "${code.trim().split("\n")[0]}"` : "");
    }
    const url = new URL(begun);
    url.searchParams.set("body", url.searchParams.get("body").replace("Place: ", `Place: ${told.filter(Boolean).join(", ")}`));
    link.href = url;
  });
});
