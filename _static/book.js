// What the pages need beyond the theme. It runs on every page, from a server and from the disk.

// Opened from the disk a page may not fetch its neighbours, so search results come without an excerpt.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

// A box that scrolls sideways must be reachable from the keyboard, and one that does not must be no tab stop.
// The theme does this for code and tables when the page is loaded and when the window changes; formulas, the map, and
// code that is unfolded later are left to us.
window.addEventListener("load", () => {
  const boxes = document.querySelectorAll(".bd-article :is(div.math, .map, details pre)");
  const update = (box) => {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  };
  const observer = new ResizeObserver((entries) => entries.forEach((entry) => update(entry.target)));
  boxes.forEach((box) => observer.observe(box));
  window.MathJax?.startup?.promise?.then(() => boxes.forEach(update));
});

// Paper is white: a page read in the dark is printed in the light theme.
const root = document.documentElement;
let shown;
window.addEventListener("beforeprint", () => { shown = root.dataset.theme; root.dataset.theme = "light"; });
window.addEventListener("afterprint", () => { root.dataset.theme = shown; });
