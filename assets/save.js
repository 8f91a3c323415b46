// Saves a chart of this page as a picture, as it is drawn now. The chart is found by the class that Streamlit gives an
// element with a key; both kinds of charts here are SVG in the page, plotly's in several layers.

const NS = "http://www.w3.org/2000/svg";
const SCALE = 3; // pixels of a PNG for each of the page's

export default function ({ parentElement, data }) {
  for (const button of parentElement.querySelectorAll("button")) {
    button.onclick = () => save(data, button.value).catch((error) => say(parentElement, `${error.message}`));
  }
  say(parentElement, "");
  return () => {};
}

function say(root, text) {
  root.querySelector("[role=status]").textContent = text;
}

async function save({ chart, name }, format) {
  const box = document.querySelector(`.st-key-${chart.replace(/[^a-zA-Z0-9_-]/g, "-")}`);
  const drawn = box && drawing(box);
  if (!drawn) throw new Error("The chart is not drawn yet; try again in a moment.");
  const text = new XMLSerializer().serializeToString(drawn);
  const blob = format === "svg" ? new Blob([text], { type: "image/svg+xml" }) : await png(text, drawn);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${name}.${format}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function drawing(box) {
  let layers = [...box.querySelectorAll("svg.main-svg")];
  if (!layers.length) {
    const area = (svg) => svg.clientWidth * svg.clientHeight;
    layers = [...box.querySelectorAll("svg")].sort((a, b) => area(b) - area(a)).slice(0, 1);
  }
  const size = layers.length && layers[0].getBoundingClientRect();
  if (!size || size.width < 50) return null;
  const out = document.createElementNS(NS, "svg");
  out.setAttribute("width", size.width);
  out.setAttribute("height", size.height);
  out.setAttribute("viewBox", `0 0 ${size.width} ${size.height}`);
  out.style.fontFamily = getComputedStyle(layers[0]).fontFamily;
  const ground = document.createElementNS(NS, "rect"); // letters have the colours of a light or a dark page
  ground.setAttribute("width", "100%");
  ground.setAttribute("height", "100%");
  ground.setAttribute("fill", getComputedStyle(document.querySelector(".stApp")).backgroundColor);
  out.append(ground);
  for (const layer of layers) for (const child of layer.childNodes) out.append(child.cloneNode(true));
  for (const gone of out.querySelectorAll(".hoverlayer, .draglayer, .zoomlayer, .modebar")) gone.remove();
  for (const element of out.querySelectorAll("[clip-path], [fill], [style]"))
    for (const { name, value } of [...element.attributes]) // references that hold the page's address
      if (/url\(.*#/.test(value)) element.setAttribute(name, value.replace(/url\((["']?)[^#)]*#/g, "url($1#"));
  return out;
}

async function png(text, drawn) {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(drawn.getAttribute("width") * SCALE);
  canvas.height = Math.round(drawn.getAttribute("height") * SCALE);
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}
