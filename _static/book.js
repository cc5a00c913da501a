// What the pages need beyond the theme. It runs on every page, from a server and from the disk.

// Opened from the disk a page may not fetch its neighbours, so search results come without an excerpt.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

// A box that scrolls sideways must be reachable from the keyboard, and one that does not must be no tab stop. A formula
// in the text cannot break: where it is wider than its paragraph, it becomes a box that scrolls. What is far from the
// window has no layout, and to ask for its width would make one. So each is looked at when it gets its size: as the
// reader comes near, as code is unfolded, as the window changes.
const article = document.querySelector(".bd-article");
if (article) {
  const boxes = "div.math, .map, pre, .pst-scrollable-table-container, .cell_output > .output";
  const rooms = new Map();
  article.querySelectorAll("span.math").forEach((formula) => {
    const room = formula.closest("p, li, dd, td, th, figcaption, div");
    rooms.set(room, [...rooms.get(room) ?? [], formula]);
  });
  const changed = new Set();
  const look = () => {
    const formulas = [...changed].flatMap((room) => (rooms.get(room) ?? []).map((formula) => [formula,
      formula.firstElementChild?.getBoundingClientRect().width > room.clientWidth]));
    const scrolls = [...changed].filter((box) => box.matches(boxes)).map((box) => [box, box.scrollWidth > box.clientWidth]);
    formulas.forEach(([formula, wide]) => formula.classList.toggle("wide", wide));
    for (const [box, reachable] of [...formulas, ...scrolls])
      if (reachable) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    changed.clear();
    article.dataset.looked = "";
  };
  const observer = new ResizeObserver((entries) => {
    delete article.dataset.looked;
    if (!changed.size) requestAnimationFrame(look);
    entries.forEach(({target}) => changed.add(target));
  });
  [...rooms.keys(), ...article.querySelectorAll(boxes)].forEach((node) => observer.observe(node));
  requestAnimationFrame(look);
}

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
