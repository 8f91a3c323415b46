// Drawing board: a picture drawn from nothing, or a mask painted over a picture.
//
// The page hears of a drawing after every stroke, as `picture`, a PNG in a data URL; of a mask when its button is
// pressed. What was drawn stays here until it is cleared: the page's answers never touch it.

const SIDE = 256; // pixels of the picture that is sent
const INK = { draw: "#ffffff", mask: "rgb(214, 110, 40)" };
const boards = new WeakMap(); // survives that this module's function is called again on every change

export default function ({ parentElement, data, setStateValue }) {
  let board = boards.get(parentElement);
  if (!board) {
    board = new Board(parentElement, data);
    boards.set(parentElement, board);
  }
  board.send = (picture) => setStateValue("picture", picture);
  board.apply(data);
  return () => boards.delete(parentElement);
}

class Board {
  constructor(parent, data) {
    this.kind = data.kind;
    this.root = document.createElement("div");
    this.root.className = "draw";
    this.root.innerHTML = `
      <div class="board"><img alt="" hidden><canvas width="${SIDE}" height="${SIDE}" tabindex="0" role="application"
        aria-describedby="hint"></canvas><div class="pen" hidden></div></div>
      <div class="tools">
        <label>Brush <input class="size" type="range" min="4" max="64" step="2"></label>
        <input class="colour" type="color" value="#ffffff" aria-label="Colour" title="Colour">
        <button class="eraser" type="button" aria-pressed="false">Eraser</button>
        <button class="undo" type="button">Undo</button>
        <button class="clear" type="button">Clear</button>
        <button class="done" type="button" hidden>Use this mask</button>
      </div>
      <p class="hint" id="hint">Without a mouse: arrow keys move the brush, space puts it down and lifts it, Z undoes,
        Delete clears.</p>
      <p class="spoken" aria-live="polite"></p>`;
    parent.appendChild(this.root);
    const find = (name) => this.root.querySelector(name);
    this.canvas = find("canvas");
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    this.under = find("img");
    this.pen = find(".pen");
    this.size = find(".size");
    this.colour = find(".colour");
    this.eraser = find(".eraser");
    this.spoken = find(".spoken");
    this.past = []; // what undo goes back to
    this.last = null; // where the pointer was during a stroke
    this.at = [SIDE / 2, SIDE / 2]; // where the keyboard's brush is
    this.down = false; // whether it draws as it moves
    this.size.value = data.brush;

    const canvas = this.canvas;
    canvas.onpointerdown = (event) => {
      if (event.button) return;
      canvas.setPointerCapture(event.pointerId);
      this.keep();
      this.last = this.place(event);
      this.stroke(this.last, this.last);
    };
    canvas.onpointermove = (event) => {
      if (!this.last) return;
      for (const one of event.getCoalescedEvents?.() ?? [event]) {
        const to = this.place(one);
        this.stroke(this.last, to);
        this.last = to;
      }
    };
    canvas.onpointerup = canvas.onpointercancel = () => {
      if (!this.last) return;
      this.last = null;
      this.changed();
    };
    canvas.onkeydown = (event) => this.key(event);
    canvas.onblur = () => this.lift();
    this.size.oninput = () => this.showPen();
    this.eraser.onclick = () =>
      this.eraser.setAttribute("aria-pressed", String(this.eraser.getAttribute("aria-pressed") !== "true"));
    find(".undo").onclick = () => this.undo();
    find(".clear").onclick = () => this.clear();
    this.done = find(".done");
    this.done.onclick = () => this.send(this.empty() ? "" : this.picture());
  }

  apply(data) {
    this.canvas.setAttribute("aria-label", data.label);
    this.colour.hidden = !data.colours;
    this.done.hidden = this.kind !== "mask";
    this.under.hidden = !data.under;
    if (data.under && this.under.getAttribute("src") !== data.under) {
      if (this.under.hasAttribute("src")) this.wipe(); // another picture: its object lies elsewhere
      this.under.src = data.under;
    }
  }

  // ---- drawing ----

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * SIDE, ((event.clientY - box.top) / box.height) * SIDE];
  }

  stroke([x, y], [u, v]) {
    const pen = this.context;
    pen.globalCompositeOperation =
      this.eraser.getAttribute("aria-pressed") === "true" ? "destination-out" : "source-over";
    pen.strokeStyle = this.kind === "mask" ? INK.mask : this.colour.hidden ? INK.draw : this.colour.value;
    pen.lineWidth = Number(this.size.value);
    pen.lineCap = pen.lineJoin = "round";
    pen.beginPath();
    pen.moveTo(x, y);
    pen.lineTo(u + 0.01, v); // a click is a dot
    pen.stroke();
    this.canvas.style.opacity = this.kind === "mask" ? 0.65 : 1;
  }

  keep() {
    this.past.push(this.context.getImageData(0, 0, SIDE, SIDE));
    if (this.past.length > 30) this.past.shift();
  }

  undo() {
    if (!this.past.length) return;
    this.context.putImageData(this.past.pop(), 0, 0);
    this.changed();
  }

  clear() {
    if (!this.empty()) this.keep();
    this.context.clearRect(0, 0, SIDE, SIDE);
    this.changed();
    this.spoken.textContent = "Cleared.";
  }

  wipe() {
    this.context.clearRect(0, 0, SIDE, SIDE);
    this.past = [];
  }

  changed() {
    if (this.kind === "draw") this.send(this.empty() ? "" : this.picture());
  }

  // ---- what is sent ----

  empty() {
    const pixels = this.context.getImageData(0, 0, SIDE, SIDE).data;
    for (let i = 3; i < pixels.length; i += 4) if (pixels[i]) return false;
    return true;
  }

  picture() {
    const out = document.createElement("canvas");
    out.width = out.height = SIDE;
    const pen = out.getContext("2d");
    pen.drawImage(this.canvas, 0, 0);
    if (this.kind === "mask") {
      pen.globalCompositeOperation = "source-in"; // white wherever something was painted
      pen.fillStyle = "#ffffff";
      pen.fillRect(0, 0, SIDE, SIDE);
    }
    pen.globalCompositeOperation = "destination-over";
    pen.fillStyle = "#000000";
    pen.fillRect(0, 0, SIDE, SIDE);
    return out.toDataURL("image/png");
  }

  // ---- keyboard ----

  key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.ctrlKey || event.metaKey || event.altKey) {
      if (event.key.toLowerCase() === "z") this.undo();
      else return;
    } else if (moves[event.key]) {
      const step = event.shiftKey ? 2 : Math.max(4, Number(this.size.value) / 2);
      const to = this.at.map((value, i) => Math.min(SIDE, Math.max(0, value + step * moves[event.key][i])));
      if (this.down) this.stroke(this.at, to);
      this.at = to;
    } else if (event.key === " ") {
      if (this.down) this.lift();
      else {
        this.keep();
        this.down = true;
        this.stroke(this.at, this.at);
        this.spoken.textContent = "Brush down.";
      }
    } else if (event.key === "Delete" || event.key === "Backspace") this.clear();
    else if (event.key.toLowerCase() === "z") this.undo();
    else return;
    event.preventDefault();
    this.showPen();
  }

  lift() {
    this.pen.hidden = true;
    if (!this.down) return;
    this.down = false;
    this.spoken.textContent = "Brush lifted.";
    this.changed();
  }

  showPen() {
    const focused = this.root.getRootNode().activeElement === this.canvas;
    this.pen.hidden = !focused;
    const share = (value) => `${(100 * value) / SIDE}%`;
    Object.assign(this.pen.style, { left: share(this.at[0]), top: share(this.at[1]), width: share(this.size.value) });
    this.pen.style.height = this.pen.style.width;
    this.pen.classList.toggle("down", this.down);
  }
}
