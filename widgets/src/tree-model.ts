// State of a tree whose children are loaded in pages, without any DOM.
//
// A node knows how many children it has and those pages of them that were asked for, so a group with
// 100,000 members costs nothing before it is scrolled. Looking up a visible row walks open nodes only:
// O(open siblings + depth), never O(rows).

/** One row as the kernel describes it. */
export interface Row {
  name: string;
  kind: string;
  leaf: boolean;
  array?: boolean;
  type?: string;
  shape?: string;
  size?: string;
  error?: string;
}

/** Asks for children `start` to `start + count` of a node; the answer comes through `receive`. */
export type Request = (node: TreeNode, start: number, count: number) => void;

export class TreeNode {
  readonly children = new Map<number, TreeNode>();
  readonly asked = new Set<number>();
  /** Indices of open children, ascending. */
  openChildren: number[] = [];
  open = false;
  /** Number of children, null while unknown. */
  total: number | null = null;
  /** Rows that the node shows below itself while it is open. */
  visible = 0;
  error: string | null = null;

  constructor(
    readonly parent: TreeNode | null,
    readonly index: number,
    public row: Row,
  ) {}

  get level(): number {
    return this.parent ? this.parent.level + 1 : 0;
  }

  get path(): string[] {
    return this.parent ? [...this.parent.path, this.row.name] : [];
  }
}

/** A visible row: the node is null while its page is on the way. */
export interface VisibleRow {
  at: number;
  parent: TreeNode;
  index: number;
  node: TreeNode | null;
}

export class TreeModel {
  readonly root = new TreeNode(null, 0, { name: "", kind: "group", leaf: false });

  constructor(
    private readonly request: Request,
    readonly page = 60,
  ) {
    this.root.open = true;
  }

  /** Rows that are visible when scrolled to. */
  get size(): number {
    return this.root.visible;
  }

  /** Makes sure that children `first` to `last` of a node are there or on their way. */
  ask(node: TreeNode, first: number, last: number): void {
    for (let page = Math.floor(first / this.page); page <= Math.floor(last / this.page); page++) {
      const start = page * this.page;
      if (node.asked.has(page) || (node.total !== null && start >= node.total)) continue;
      node.asked.add(page);
      this.request(node, start, this.page);
    }
  }

  receive(node: TreeNode, start: number, total: number, rows: readonly Row[]): void {
    node.error = null;
    if (node.total !== total) this.resize(node, total);
    rows.forEach((row, offset) => {
      const index = start + offset;
      if (index >= total) return;
      const known = node.children.get(index);
      if (known && known.row.name === row.name && known.row.leaf === row.leaf) known.row = row;
      else this.replace(node, index, row);
    });
  }

  /** Reads again what was read of all nodes that are open; others forget their children. */
  refresh(node: TreeNode = this.root): void {
    const pages = [...node.asked];
    node.asked.clear();
    for (const child of node.children.values()) {
      if (child.open) this.refresh(child);
      else this.forget(child);
    }
    for (const page of pages.length ? pages : [0]) this.ask(node, page * this.page, page * this.page);
  }

  /** Notes that children could not be read; drawing asks for them again only after `retry` or `refresh`. */
  fail(node: TreeNode, error: string): void {
    node.error = error;
    if (node.total === null) node.total = 0;
  }

  retry(node: TreeNode): void {
    if (node.error === null) return;
    node.error = null;
    if (node.total === 0) node.total = null;
    this.refresh(node);
  }

  expand(node: TreeNode): void {
    const parent = node.parent;
    if (!parent || node.row.leaf || node.open) return;
    node.open = true;
    node.visible = node.openChildren.reduce((sum, index) => sum + this.childAt(node, index).visible, node.total ?? 0);
    const at = parent.openChildren.findIndex((index) => index > node.index);
    parent.openChildren.splice(at < 0 ? parent.openChildren.length : at, 0, node.index);
    this.grow(parent, node.visible);
    if (node.error !== null) this.retry(node);
    else if (node.total === null) this.ask(node, 0, 0);
  }

  collapse(node: TreeNode): void {
    const parent = node.parent;
    if (!parent || !node.open) return;
    node.open = false;
    parent.openChildren = parent.openChildren.filter((index) => index !== node.index);
    this.grow(parent, -node.visible);
  }

  rowAt(at: number): VisibleRow {
    let node = this.root;
    let rest = at;
    for (;;) {
      let extra = 0; // rows that open children before the target add
      let inside: TreeNode | null = null;
      for (const index of node.openChildren) {
        const child = this.childAt(node, index);
        const row = index + extra;
        if (rest <= row) break;
        if (rest <= row + child.visible) {
          inside = child;
          rest -= row + 1;
          break;
        }
        extra += child.visible;
      }
      if (!inside) {
        const index = rest - extra;
        return { at, parent: node, index, node: node.children.get(index) ?? null };
      }
      node = inside;
    }
  }

  indexOf(node: TreeNode): number {
    let at = 0;
    for (let here = node; here.parent; here = here.parent) {
      const parent = here.parent;
      at += here.index;
      for (const index of parent.openChildren) {
        if (index >= here.index) break;
        at += this.childAt(parent, index).visible;
      }
      if (parent.parent) at += 1;
    }
    return at;
  }

  /** Whether a node is still in the tree: what was read again may have put another in its place. */
  has(node: TreeNode): boolean {
    const { parent } = node;
    return parent === null || (parent.children.get(node.index) === node && this.has(parent));
  }

  /** Rows to draw, asking for those that are missing. */
  window(first: number, last: number): VisibleRow[] {
    const rows: VisibleRow[] = [];
    for (let at = Math.max(0, first); at <= last && at < this.size; at++) {
      const row = this.rowAt(at);
      if (!row.node) this.ask(row.parent, row.index, row.index);
      rows.push(row);
    }
    return rows;
  }

  /** The next loaded sibling whose name begins with `typed`, wrapping around. */
  find(from: TreeNode | null, typed: string): TreeNode | null {
    const parent = from?.parent ?? this.root;
    const start = from ? from.index : -1;
    const loaded = [...parent.children.keys()].sort((a, b) => a - b);
    const stay = typed.length > 1; // a second letter may still mean the same row
    const order = [...loaded.filter((index) => index > start || (stay && index === start)), ...loaded];
    const wanted = typed.toLowerCase();
    const hit = order.find((index) => this.childAt(parent, index).row.name.toLowerCase().startsWith(wanted));
    return hit === undefined ? null : this.childAt(parent, hit);
  }

  private resize(node: TreeNode, total: number): void {
    const grown = total - (node.total ?? 0);
    for (const child of [...node.children.values()]) {
      if (child.index < total) continue;
      this.collapse(child);
      node.children.delete(child.index);
    }
    node.total = total;
    if (node.open) this.grow(node, grown);
  }

  private replace(node: TreeNode, index: number, row: Row): void {
    const before = node.children.get(index);
    if (before) this.collapse(before);
    node.children.set(index, new TreeNode(node, index, row));
  }

  private forget(node: TreeNode): void {
    node.children.clear();
    node.asked.clear();
    node.openChildren = [];
    node.error = node.total = null;
    node.visible = 0;
  }

  private grow(from: TreeNode, rows: number): void {
    for (let node: TreeNode | null = from; node; node = node.parent) {
      node.visible += rows;
      if (node.parent && !node.open) return;
    }
  }

  private childAt(node: TreeNode, index: number): TreeNode {
    const child = node.children.get(index);
    if (!child) throw new Error(`row ${index} of ${node.path.join("/") || "the root"} is not loaded`);
    return child;
  }
}
