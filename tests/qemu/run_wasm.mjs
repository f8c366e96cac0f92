// Calls one exported function of a WebAssembly module and prints its integer
// result in hexadecimal: eight digits for a 32-bit result, sixteen for 64 bits.
//
//     node run_wasm.mjs MODULE.wasm FUNCTION [INTEGER...]     (5 is i32, 5n is i64)
import { readFileSync } from "node:fs";

function fail(message) {
  console.error(`run_wasm: ${message}`);
  process.exit(1);
}

const [path, name, ...texts] = process.argv.slice(2);
if (name === undefined) fail("usage: run_wasm.mjs MODULE.wasm FUNCTION [INTEGER...]");

const args = texts.map((text) => {
  if (!/^-?[0-9]+n?$/.test(text)) fail(`not an integer: ${text}`);
  return text.endsWith("n") ? BigInt(text.slice(0, -1)) : Number(text);
});

const module = new WebAssembly.Module(readFileSync(path));

// A kernel library asks nothing of its host; an import is a mistake in the build.
const imports = WebAssembly.Module.imports(module);
if (imports.length > 0) {
  fail(`the module imports ${imports.map((i) => `${i.module}.${i.name}`).join(", ")}`);
}

const { exports } = new WebAssembly.Instance(module, {});
if (typeof exports[name] !== "function") {
  const names = Object.keys(exports).filter((n) => typeof exports[n] === "function");
  fail(`no exported function ${name}; there are ${names.join(", ") || "none"}`);
}

const result = exports[name](...args);
if (typeof result === "bigint") {
  console.log(BigInt.asUintN(64, result).toString(16).padStart(16, "0"));
} else if (Number.isInteger(result)) {
  console.log((result >>> 0).toString(16).padStart(8, "0"));
} else {
  fail(`${name} returned ${result}, not an integer`);
}
