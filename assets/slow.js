// One step in slow motion: its parts one after another, each lit up where it acts in the drawing of the method.
//
// In a seminar the presenter's part is everybody's (room.js): “limbeck-part” says what was done here, and “limbeck-show”
// what shall be.

const STAYS = 3000; // milliseconds of a part
const shows = new WeakMap();

export default function ({ parentElement, data }) {
  let show = shows.get(parentElement);
  if (!show) {
    show = new Show(parentElement);
    shows.set(parentElement, show);
  }
  show.apply(data);
  return () => {
    show.close();
    shows.delete(parentElement);
  };
}

class Show {
  constructor(parent) {
    this.at = 0;
    this.calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.back = element("button", { type: "button", textContent: "Back", onclick: () => this.move(-1) });
    this.on = element("button", { type: "button", textContent: "Next", onclick: () => this.move(1) });
    this.toggle = element("button", { type: "button", onclick: () => this.told(() => this.play(!this.playing)) });
    this.words = element("p", { className: "words", ariaLive: "polite" });
    this.parts = element("ol", { className: "parts" });
    this.root = element(
      "section",
      { className: "slow", ariaLabel: "One step in slow motion" },
      element("div", { className: "tools" }, this.toggle, this.back, this.on, this.words),
      this.parts,
    );
    this.root.onkeydown = (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!by) return;
      event.preventDefault();
      this.move(by);
    };
    parent.append(this.root);
    this.onShow = ({ detail }) => this.obey(detail.part);
    window.addEventListener("limbeck-show", this.onShow);
  }

  // Something is done by hand.
  told(act) {
    act();
    this.report(true);
  }

  report(own) {
    window.dispatchEvent(new CustomEvent("limbeck-part", { detail: { own, part: this.playing ? -1 : this.at } }));
  }

  obey(part) {
    if (part < 0 && !this.playing && !this.calm) this.play(true);
    if (part >= 0 && part < this.data.parts.length) this.hold(part);
  }

  apply(data) {
    const same = JSON.stringify(data);
    if (same === this.same) return;
    this.same = same;
    this.data = data;
    this.parts.replaceChildren(
      ...data.parts.map((part, i) =>
        element(
          "li",
          { onclick: () => this.told(() => this.hold(i)) },
          element("h4", {}, part.title),
          element("img", { src: part.url, alt: part.alt }),
        ),
      ),
    );
    this.at = 0;
    this.play(!this.calm);
    this.report(false);
  }

  play(on) {
    clearInterval(this.timer);
    this.playing = on;
    this.toggle.textContent = on ? "Pause" : "Play";
    if (on) this.timer = setInterval(() => this.light((this.at + 1) % this.data.parts.length), STAYS);
    this.light(this.at);
  }

  hold(i) {
    this.play(false);
    this.light(i);
  }

  move(by) {
    const count = this.data.parts.length;
    this.told(() => this.hold((this.at + by + count) % count));
  }

  light(i) {
    this.at = i;
    const part = this.data.parts[i];
    [...this.parts.children].forEach((item, n) => {
      item.classList.toggle("lit", n === i);
      item.toggleAttribute("aria-current", n === i);
    });
    this.words.textContent = part.words;
    for (const lit of document.querySelectorAll(".method .lit")) lit.classList.remove("lit");
    for (const there of document.querySelectorAll(part.lights)) there.classList.add("lit");
  }

  close() {
    clearInterval(this.timer);
    window.removeEventListener("limbeck-show", this.onShow);
    for (const lit of document.querySelectorAll(".method .lit")) lit.classList.remove("lit");
    this.root.remove();
  }
}
