// The gallery: tiles with small canvases in which sets of images take form, rest, and begin again.
//
// The page passes what a tile says and which frames it shows (small JSON). Frames come by their own immutable URLs once
// a tile is in view; nothing here makes the page's script run.

const BEAT = 80; // ms between two drawings of all tiles that are in view
const [REST, FORM, STAND, FADE] = [500, 6000, 3000, 900]; // ms: the first images, their change, the last ones, back
const APART = 400; // ms by which neighbours begin later
const SMALL = [5, 2]; // images of a tile, across and down: one of each class …
const LARGE = [10, 4]; // … or the first rows, where there are many
const galleries = new WeakMap(); // survives that this module's function is called again on every change

export default function ({ parentElement, data }) {
  let gallery = galleries.get(parentElement);
  if (!gallery) {
    gallery = new Gallery(parentElement);
    galleries.set(parentElement, gallery);
  }
  gallery.apply(data.tiles);
  return () => {
    gallery.close();
    galleries.delete(parentElement);
  };
}

// ---- one tile ---------------------------------------------------------------------------------------------------

class Tile {
  constructor(about, place) {
    this.about = about;
    this.place = place;
    this.seen = false;
    this.pictures = []; // promises of arranged frames, then the frames themselves; null where one could not be had
    this.began = null;
    const { columns, rows } = about.layout;
    const [across, down] = columns * rows >= LARGE[0] * LARGE[1] ? LARGE : SMALL;
    this.across = Math.min(across, columns * rows);
    this.down = Math.min(down, Math.ceil((columns * rows) / this.across));
    const side = about.layout.size + 1; // a pixel between two images
    const heading = element("h2", { id: `tile-${about.id}` }, about.title);
    this.canvas = element("canvas", {
      width: this.across * side - 1, height: this.down * side - 1, role: "img", ariaLabel: about.alt,
      onclick: () => location.assign(about.links[0].href),
    });
    this.pen = this.canvas.getContext("2d");
    this.root = element(
      "article",
      { "aria-labelledby": heading.id },
      this.canvas,
      heading,
      element("p", {}, about.about),
      element("p", { className: "number" }, element("strong", {}, about.number), ` ${about.measured}`),
      ...about.facts.map((fact) => element("p", { className: "fact" }, fact)),
      element(
        "p",
        { className: "links" },
        ...about.links.map(({ to, help, href }) =>
          element("a", { href, title: help, ariaLabel: `${to}: ${about.title}` }, to),
        ),
      ),
    );
    for (const empty of this.root.querySelectorAll("p:empty")) empty.remove();
  }

  // The frame with that number among those shown, its images arranged as the tile has room for them.
  picture(number) {
    if (this.pictures[number] === undefined)
      this.pictures[number] = this.fetch(number)
        .catch(() => null)
        .then((made) => (this.pictures[number] = made));
    return this.pictures[number];
  }

  async fetch(number) {
    const { id, frames, layout } = this.about;
    const [step, event] = frames[number];
    const answer = await fetch(`/api/runs/${id}/frames/${step}.webp?e=${event}`);
    if (!answer.ok) throw new Error(String(answer.status));
    const frame = await createImageBitmap(await answer.blob());
    const size = layout.size;
    const made = element("canvas", { width: this.canvas.width, height: this.canvas.height });
    const pen = made.getContext("2d");
    for (let i = 0; i < Math.min(this.across * this.down, layout.columns * layout.rows); i++)
      pen.drawImage(
        frame, (i % layout.columns) * size, Math.floor(i / layout.columns) * size, size, size,
        (i % this.across) * (size + 1), Math.floor(i / this.across) * (size + 1), size, size,
      );
    frame.close();
    return made;
  }

  // One frame after another, so that the tiles come in side by side.
  async load() {
    if (this.loading) return;
    this.loading = true;
    for (let number = 0; number < this.about.frames.length; number++) await this.picture(number);
    this.complete = true;
  }

  async stand() {
    this.began = null;
    const last = await this.picture(this.about.frames.length - 1);
    if (last && this.began === null) this.draw([last, last, 0]);
  }

  // What is to be seen at a moment: two pictures, and how much of the second there is.
  moment(now) {
    const there = [];
    for (const picture of this.pictures) {
      if (picture === undefined || picture instanceof Promise) break;
      if (picture) there.push(picture);
    }
    if (!there.length) return null;
    if (this.began === null) this.began = now + APART * (this.place % 4);
    const first = there[0];
    const last = there.at(-1);
    let time = Math.max(0, now - this.began) % (REST + FORM + STAND + FADE);
    if (time < REST) return [first, first, 0];
    time -= REST;
    if (time < FORM) {
      const at = (time / FORM) * (this.about.frames.length - 1);
      const before = Math.floor(at);
      return before + 1 < there.length ? [there[before], there[before + 1], at - before] : [last, last, 0];
    }
    time -= FORM;
    return time < STAND || !this.complete ? [last, last, 0] : [last, first, (time - STAND) / FADE];
  }

  draw([one, other, share]) {
    if (this.drawn && this.drawn[0] === one && this.drawn[1] === other && this.drawn[2] === share) return;
    this.drawn = [one, other, share];
    this.pen.globalAlpha = 1;
    this.pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.pen.drawImage(one, 0, 0);
    if (!share) return;
    this.pen.globalAlpha = share;
    this.pen.drawImage(other, 0, 0);
  }
}

// ---- all of them ------------------------------------------------------------------------------------------------

const ICONS = { Pause: '<path d="M6 5h4v14H6zM14 5h4v14h-4z"/>', Play: '<path d="M8 5v14l11-7z"/>' };

class Gallery {
  constructor(parent) {
    this.tiles = [];
    this.moving = false;
    this.calm = matchMedia("(prefers-reduced-motion: reduce)");
    this.toggle = element("button", { type: "button", onclick: () => this.move(!this.moving) });
    this.grid = element("div", { className: "tiles" });
    this.root = element("section", { className: "gallery", ariaLabel: "Finished runs" }, this.toggle, this.grid);
    parent.append(this.root);
    this.watch = new IntersectionObserver((entries) => this.look(entries), { rootMargin: "100px" });
    this.onCalm = () => this.move(!this.calm.matches);
    this.calm.addEventListener("change", this.onCalm);
    this.onShown = () => this.run();
    document.addEventListener("visibilitychange", this.onShown);
    this.move(!this.calm.matches);
  }

  apply(wanted) {
    const known = new Map(this.tiles.map((tile) => [JSON.stringify(tile.about), tile]));
    const tiles = wanted.map(
      (about, place) => known.get(JSON.stringify(about)) || new Tile(about, place),
    );
    if (tiles.length === this.tiles.length && tiles.every((tile, place) => tile === this.tiles[place])) return;
    this.tiles = tiles;
    this.watch.disconnect();
    this.grid.replaceChildren(...this.tiles.map((tile) => tile.root));
    for (const tile of this.tiles) this.watch.observe(tile.root);
  }

  look(entries) {
    for (const entry of entries) {
      const tile = this.tiles.find((one) => one.root === entry.target);
      if (!tile) continue;
      tile.seen = entry.isIntersecting;
      if (tile.seen) this.show(tile);
    }
    this.run();
  }

  show(tile) {
    if (this.moving) tile.load();
    else tile.stand();
  }

  move(moving) {
    this.moving = moving;
    const word = moving ? "Pause" : "Play";
    this.toggle.innerHTML = `<svg viewBox="0 0 24 24" aria-hidden="true">${ICONS[word]}</svg>${word}`;
    for (const tile of this.tiles) if (tile.seen) this.show(tile);
    this.run();
  }

  // The one timer, while there is something to move.
  run() {
    clearInterval(this.timer);
    if (!this.moving || document.hidden || !this.tiles.some((tile) => tile.seen)) return;
    this.timer = setInterval(() => {
      const now = performance.now();
      for (const tile of this.tiles) {
        const moment = tile.seen && tile.moment(now);
        if (moment) tile.draw(moment);
      }
    }, BEAT);
  }

  close() {
    clearInterval(this.timer);
    this.watch.disconnect();
    this.calm.removeEventListener("change", this.onCalm);
    document.removeEventListener("visibilitychange", this.onShown);
    this.root.remove();
  }
}
