// What the pages need beyond the theme. It runs on every page, from a server and from the disk.

// Opened from the disk a page may not fetch its neighbours, so search results come without an excerpt.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

// A box that scrolls sideways must be reachable from the keyboard, and one that does not must be no tab stop.
// The theme does this for code and tables when the page is loaded and when the window changes; formulas, the map, and
// code that changes otherwise, as it is unfolded or comes back from paper, are left to us.
window.addEventListener("load", () => {
  const boxes = document.querySelectorAll(".bd-article :is(div.math, .map, pre)");
  const update = (box) => {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  };
  const observer = new ResizeObserver((entries) => entries.forEach((entry) => update(entry.target)));
  boxes.forEach((box) => observer.observe(box));
  // A formula in the text cannot break: where it is wider than its paragraph, it becomes a box that scrolls.
  const formulas = [...document.querySelectorAll(".bd-article span.math")];
  const fit = () => {
    const wide = formulas.map((formula) => {
      const drawn = formula.firstElementChild, room = formula.closest("p, li, dd, td, th, figcaption, div");
      return drawn !== null && drawn.getBoundingClientRect().width > room.clientWidth;
    });
    formulas.forEach((formula, index) => {
      formula.classList.toggle("wide", wide[index]);
      if (wide[index]) formula.tabIndex = 0;
      else formula.removeAttribute("tabindex");
    });
  };
  window.MathJax?.startup?.promise?.then(() => {
    boxes.forEach(update);
    if (formulas.length) new ResizeObserver(fit).observe(document.querySelector(".bd-article"));
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
