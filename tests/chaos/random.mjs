// Random choices that a seed reproduces. splitmix64, http://prng.di.unimi.it/splitmix64.c (public domain).
const MASK = (1n << 64n) - 1n;

export function mix(x) {
  x = (x + 0x9e3779b97f4a7c15n) & MASK;
  x = ((x ^ (x >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK;
  x = ((x ^ (x >> 27n)) * 0x94d049bb133111ebn) & MASK;
  return x ^ (x >> 31n);
}

export class Random {
  /** The same seed and name give the same choices; different names give independent choices. */
  constructor(seed, name = '') {
    this.state = mix(BigInt(seed));
    for (const byte of Buffer.from(name)) this.state = mix(this.state ^ BigInt(byte));
  }

  /** From 0 to less than 1. */
  share() {
    this.state = (this.state + 0x9e3779b97f4a7c15n) & MASK;
    return Number(mix(this.state) >> 11n) * 2 ** -53;
  }

  /** A whole number from `least` to `most`. */
  whole(least, most) {
    return least + Math.floor(this.share() * (most - least + 1));
  }

  chance(share) {
    return this.share() < share;
  }

  pick(list) {
    return list[Math.floor(this.share() * list.length)];
  }
}
