// Draw every chart from the specifications in this page.
const page = JSON.parse(document.getElementById("specs").textContent);
function draw(element) {
  const name = element.id;
  return window
    .vegaEmbed(element, page.charts[name], {
      mode: "vega-lite",
      renderer: "svg",
      config: page.config,
      actions: false,
    })
    .catch((error) => {
      element.textContent = "This chart could not be drawn: " + error.message;
      console.error(name, error);
    });
}
const charts = Array.from(document.querySelectorAll(".chart"));
// What is in sight comes first, the rest while the reader looks at it: all is there when the page is printed.
const inSight = (element) => element.getBoundingClientRect().top < window.innerHeight;
const queue = [...charts.filter(inSight), ...charts.filter((element) => !inSight(element))];
(function next() {
  const element = queue.shift();
  if (element) draw(element).then(() => setTimeout(next, 0));
  else document.documentElement.dataset.charts = "drawn";
})();
window.addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((element) => element.setAttribute("open", ""));
});
