/** The Python implementation as a child process; tests/fakes/js says what it answers. */

import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { createInterface } from "node:readline";

export const ROOT = fileURLToPath(new URL("../../../", import.meta.url));
export const PYTHON = process.env["ATTEST_PYTHON"] ?? `${ROOT}.venv/bin/python`;

/** A program of tests/fakes/js. */
export function python(name: string, ...options: string[]): ChildProcess {
  return spawn(PYTHON, ["-m", `fakes.js.${name}`, ...options], {
    cwd: ROOT,
    env: { ...process.env, PYTHONPATH: `${ROOT}tests`, PYTHONDONTWRITEBYTECODE: "1" },
    stdio: ["pipe", "pipe", "inherit"],
  });
}

/** Asks one child, line by line. */
export class Lines {
  private readonly lines: AsyncIterator<string>;

  constructor(private readonly child: ChildProcess) {
    if (child.stdout === null) throw new Error("the child has no output");
    this.lines = createInterface(child.stdout)[Symbol.asyncIterator]();
  }

  async next(): Promise<unknown> {
    const line = await this.lines.next();
    if (line.done === true) throw new Error("the Python process ended; see above");
    return JSON.parse(line.value);
  }

  async ask(...request: unknown[]): Promise<unknown> {
    this.child.stdin?.write(`${JSON.stringify(request)}\n`);
    return this.next();
  }

  end(): void {
    this.child.stdin?.end();
    this.child.kill();
  }
}
