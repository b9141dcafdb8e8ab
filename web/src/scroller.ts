// A list of any length of which only what is in sight is in the document. What
// the reader looks at stays where it is, whatever is added above or turns out
// higher than was guessed.

export interface Rows {
  readonly length: number;
  /** Which row it is, for as long as it is there. */
  name(index: number): string;
  /** The same, and all that the row's looks depend on. */
  key(index: number): string;
  render(index: number): HTMLElement;
  /** About how high it will be, in pixels. */
  guess(index: number, width: number): number;
}

/** So much above and below is rendered as well, in pixels. */
const MARGIN = 600;
/** So near to the end counts as at the end, in pixels. */
const AT_END = 48;
/** With fewer rows above than this, more are asked for. */
const FEW = 30;

export class Scroller {
  private readonly inner = document.createElement("div");
  private readonly shown = new Map<string, HTMLElement>();
  private readonly heights = new Map<string, number>();
  /** Where each row begins, and where the last one ends. */
  private tops = new Float64Array(1);
  private width = 0;
  private pinned = true;
  /** Where the box was when it was last looked at. */
  private seen = 0;
  /** The row at the top, and how far its end is from there: its beginning may change. */
  private anchor = { name: "", index: 0, above: 0 };

  constructor(
    readonly box: HTMLElement,
    private readonly rows: Rows,
    private readonly nearTop: () => void,
    private readonly moved: () => void,
  ) {
    this.inner.className = "rows";
    box.replaceChildren(this.inner);
    box.addEventListener("scroll", () => this.onScroll(), { passive: true });
    new ResizeObserver(() => this.onResize()).observe(box);
  }

  get atEnd(): boolean {
    return this.pinned;
  }

  toEnd(): void {
    this.pinned = true;
    this.measureAll();
    this.settle();
  }

  /** The rows are about to change: the event of a scroll may be yet to come. */
  note(): void {
    if (this.box.scrollTop !== this.seen) this.look();
  }

  /** The rows have changed. */
  update(): void {
    this.measureAll();
    this.settle();
  }

  private onScroll(): void {
    this.look();
    this.settle();
    this.moved();
  }

  /** Where the reader has scrolled to. */
  private look(): void {
    const { scrollTop, clientHeight, scrollHeight } = this.box;
    this.pinned = scrollTop + clientHeight >= scrollHeight - AT_END;
    this.dropAnchor();
    this.seen = scrollTop;
  }

  private onResize(): void {
    this.note();
    if (this.box.clientWidth !== this.width) {
      this.width = this.box.clientWidth;
      this.heights.clear();
      for (const element of this.shown.values()) element.remove();
      this.shown.clear();
    }
    this.update();
  }

  private dropAnchor(): void {
    const index = this.at(this.box.scrollTop);
    if (index >= this.rows.length) return;
    this.anchor = { name: this.rows.name(index), index, above: this.tops[index + 1]! - this.box.scrollTop };
  }

  private measureAll(): void {
    const count = this.rows.length;
    this.tops = new Float64Array(count + 1);
    for (let index = 0; index < count; index++) {
      const height = this.heights.get(this.rows.key(index)) ?? this.rows.guess(index, this.width);
      this.tops[index + 1] = this.tops[index]! + height;
    }
  }

  /** Renders until what is in sight has its true height. */
  private settle(): void {
    for (let round = 0; round < 5; round++) {
      const total = this.tops[this.rows.length]!;
      this.inner.style.height = `${Math.max(total, this.box.clientHeight)}px`;
      this.restore(total);
      if (!this.render(total)) break;
      this.measureAll();
    }
    if (this.rows.length > 0 && this.at(this.box.scrollTop) < FEW) this.nearTop();
  }

  private restore(total: number): void {
    let wanted = this.box.scrollTop;
    if (this.pinned) {
      wanted = Math.max(0, total - this.box.clientHeight);
    } else {
      const index = this.find();
      if (index >= 0) wanted = this.tops[index + 1]! - this.anchor.above;
    }
    if (Math.abs(wanted - this.box.scrollTop) >= 1) this.box.scrollTop = wanted;
    this.seen = this.box.scrollTop;
  }

  /** Where the anchor's row is by now: rows are mostly added above it. */
  private find(): number {
    const { name, index } = this.anchor;
    const count = this.rows.length;
    for (let step = 0; step < count; step++) {
      if (index + step < count && this.rows.name(index + step) === name) return index + step;
      if (index - step >= 0 && this.rows.name(index - step) === name) return index - step;
    }
    return -1;
  }

  /** True if a row is not as high as was thought. */
  private render(total: number): boolean {
    const top = this.box.scrollTop;
    const from = this.at(top - MARGIN);
    const to = Math.min(this.at(top + this.box.clientHeight + MARGIN) + 1, this.rows.length);
    // Few rows stand at the bottom, next to where one types.
    const lift = Math.max(0, this.box.clientHeight - total);
    const keep = new Set<string>();
    let before: Element | null = null;
    for (let index = from; index < to; index++) {
      const key = this.rows.key(index);
      keep.add(key);
      let element = this.shown.get(key);
      if (!element) {
        element = this.rows.render(index);
        this.shown.set(key, element);
      }
      const place: Element | null = before ? before.nextElementSibling : this.inner.firstElementChild;
      if (place !== element) this.inner.insertBefore(element, place);
      element.style.transform = `translateY(${this.tops[index]! + lift}px)`;
      before = element;
    }
    for (const [key, element] of this.shown) {
      if (!keep.has(key)) {
        element.remove();
        this.shown.delete(key);
      }
    }
    let wrong = false;
    for (const key of keep) {
      const height = this.shown.get(key)!.getBoundingClientRect().height;
      wrong ||= Math.abs((this.heights.get(key) ?? -1) - height) > 0.5;
      this.heights.set(key, height);
    }
    return wrong;
  }

  /** The row at a height. */
  private at(y: number): number {
    let [low, high] = [0, Math.max(0, this.rows.length - 1)];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.tops[middle]! <= y) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}
