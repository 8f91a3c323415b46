// The film of a report: a slider over the frames that the page carries, and a button that plays them.
const film = JSON.parse(document.getElementById("film").textContent);
const image = document.getElementById("frame");
const where = document.getElementById("where");
const slider = document.getElementById("step");
const button = document.getElementById("play");
let timer = 0;

function show(at) {
  const [step, source, words] = film.frames[at];
  image.src = source;
  image.alt = `${film.alt}, step ${step}`;
  where.textContent = words;
  slider.value = at;
  slider.setAttribute("aria-valuetext", words);
}

function play(on) {
  clearInterval(timer);
  timer = 0;
  button.textContent = on ? "Pause" : "Play";
  if (!on) return;
  if (Number(slider.value) >= film.frames.length - 1) show(0);
  timer = setInterval(() => {
    const next = Number(slider.value) + 1;
    show(next);
    if (next >= film.frames.length - 1) play(false);
  }, 120);
}

slider.max = film.frames.length - 1;
slider.oninput = () => {
  const at = Number(slider.value);
  play(false);
  show(at);
};
button.onclick = () => play(!timer);
show(film.frames.length - 1);
document.getElementById("controls").hidden = false;
