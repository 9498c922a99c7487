/** Disjoint sets of the integers from 0 on. The representative of a set is its smallest member. */
export class UnionFind {
  readonly #parent: number[] = [];

  /** Adds a set of one. @returns its member */
  add(): number {
    return this.#parent.push(this.#parent.length) - 1;
  }

  find(member: number): number {
    const parent = this.#parent;
    let at = member;
    while (parent[at] !== at) {
      parent[at] = parent[parent[at]];
      at = parent[at];
    }
    return at;
  }

  union(a: number, b: number): void {
    const [first, second] = [this.find(a), this.find(b)];
    this.#parent[Math.max(first, second)] = Math.min(first, second);
  }
}
