import { describe, expect, it } from "vitest";
import { TreeModel, type Row, type TreeNode } from "../src/tree-model";

interface Asked {
  node: TreeNode;
  start: number;
  count: number;
}

const group = (name: string): Row => ({ name, kind: "group", leaf: false });
const leaf = (name: string): Row => ({ name, kind: "array", leaf: true });
const rows = (from: number, count: number) => Array.from({ length: count }, (_, k) => group(`n${from + k}`));

function made(total: number, page = 10) {
  const asked: Asked[] = [];
  const model = new TreeModel((node, start, count) => asked.push({ node, start, count }), page);
  model.receive(model.root, 0, total, rows(0, Math.min(page, total)));
  return { model, asked };
}

const at = (model: TreeModel, index: number) => {
  const { node } = model.rowAt(index);
  if (!node) throw new Error(`row ${index} is not loaded`);
  return node;
};

describe("pages", () => {
  it("asks once for each page that comes into sight", () => {
    const { model, asked } = made(100_000);
    expect(model.size).toBe(100_000);
    model.window(99_985, 99_999);
    model.window(99_985, 99_999);
    expect(asked.map(({ start, count }) => [start, count])).toEqual([
      [99_980, 10],
      [99_990, 10],
    ]);
    expect(model.rowAt(99_999)).toMatchObject({ node: null, index: 99_999 });
  });

  it("asks again after a failure", () => {
    const { model, asked } = made(3);
    const node = at(model, 1);
    model.expand(node);
    expect(asked).toHaveLength(1);
    model.fail(node, "gone");
    expect(node.error).toBe("gone");
    model.collapse(node);
    model.expand(node);
    expect(node.error).toBeNull();
    expect(asked).toHaveLength(2);
    model.receive(node, 0, 2, [leaf("a"), leaf("b")]);
    expect(model.size).toBe(5);
  });

  it("does not ask by itself for a page that failed, and counts its rows once", () => {
    const { model, asked } = made(3);
    const node = at(model, 1);
    model.expand(node);
    model.receive(node, 0, 25, rows(0, 10));
    model.window(0, 27);
    expect(asked).toHaveLength(3);
    model.fail(node, "gone");
    model.window(0, 27);
    expect(asked).toHaveLength(3);
    model.retry(node);
    expect(asked.slice(3).map(({ start }) => start)).toEqual([0, 10, 20]);
    model.receive(node, 0, 25, rows(0, 10));
    expect(model.size).toBe(28);
  });

  it("takes what has changed when it is refreshed, and keeps open what is still there", () => {
    const { model, asked } = made(3);
    const [first, second] = [at(model, 0), at(model, 1)];
    for (const node of [first, second]) {
      model.expand(node);
      model.receive(node, 0, 2, [leaf("a"), leaf("b")]);
    }
    asked.length = 0;
    model.refresh();
    expect(asked.map(({ node }) => node)).toEqual([first, second, model.root]);
    model.receive(model.root, 0, 2, [group("n0"), { ...group("new"), size: "1 B" }]);
    model.receive(first, 0, 3, [leaf("a"), { ...leaf("b"), size: "9 B" }, leaf("c")]);
    expect(model.size).toBe(5);
    expect([0, 1, 2, 3, 4].map((row) => at(model, row).row.name)).toEqual(["n0", "a", "b", "c", "new"]);
    expect(at(model, 2).row.size).toBe("9 B");
    expect([model.has(first), model.has(second)]).toEqual([true, false]);
  });

  it("takes a late answer for a node that was closed meanwhile", () => {
    const { model } = made(3);
    const node = at(model, 0);
    model.expand(node);
    model.collapse(node);
    model.receive(node, 0, 4, rows(0, 4));
    expect(model.size).toBe(3);
    model.expand(node);
    expect(model.size).toBe(7);
  });
});

describe("rows", () => {
  it("knows every row of nested open nodes, both ways, like a plain walk", () => {
    const { model } = made(8);
    const open = (node: TreeNode, count: number) => {
      model.expand(node);
      model.receive(node, 0, count, rows(0, count));
    };
    open(at(model, 5), 4);
    open(at(model, 2), 3);
    open(at(model, 4), 5); // a child of the node that was opened last
    const walk = (node: TreeNode): TreeNode[] =>
      [...node.children.values()].sort((a, b) => a.index - b.index).flatMap((child) => [child, ...(child.open ? walk(child) : [])]);
    const plain = walk(model.root);
    expect(model.size).toBe(plain.length);
    plain.forEach((node, index) => {
      expect(model.rowAt(index).node).toBe(node);
      expect(model.indexOf(node)).toBe(index);
    });
    model.collapse(at(model, 2));
    expect(model.size).toBe(8 + 4);
    expect(at(model, 5 + 2).path).toEqual(["n5", "n1"]);
  });

  it("never opens a leaf", () => {
    const model = new TreeModel(() => undefined);
    model.receive(model.root, 0, 1, [leaf("a")]);
    model.expand(at(model, 0));
    expect(at(model, 0).open).toBe(false);
  });

  it("shrinks and grows with the total", () => {
    const { model } = made(5);
    model.receive(model.root, 0, 6, rows(0, 6));
    expect(model.size).toBe(6);
    expect(at(model, 5).row.name).toBe("n5");
  });
});

describe("type-ahead", () => {
  it("goes on from the active row, wraps around, and stays while more letters fit", () => {
    const model = new TreeModel(() => undefined);
    model.receive(model.root, 0, 4, [leaf("apple"), leaf("Banana"), leaf("avocado"), leaf("cherry")]);
    const find = (from: number, typed: string) => model.find(at(model, from), typed)?.row.name;
    expect(find(0, "a")).toBe("avocado");
    expect(find(2, "a")).toBe("apple");
    expect(find(2, "av")).toBe("avocado");
    expect(find(0, "b")).toBe("Banana");
    expect(find(0, "x")).toBeUndefined();
    expect(model.find(null, "c")?.row.name).toBe("cherry");
  });
});
