// The grammar colours every recipe of the project, by the engine that the editor uses itself.

const assert = require("node:assert");
const fs = require("node:fs");
const path = require("node:path");
const test = require("node:test");
const oniguruma = require("vscode-oniguruma");
const { INITIAL, Registry, parseRawGrammar } = require("vscode-textmate");

const HERE = path.join(__dirname, "..");
const ROOT = path.join(HERE, "..", "..");

async function grammar() {
  const wasm = fs.readFileSync(require.resolve("vscode-oniguruma/release/onig.wasm"));
  await oniguruma.loadWASM(wasm.buffer.slice(wasm.byteOffset, wasm.byteOffset + wasm.byteLength));
  const registry = new Registry({
    onigLib: Promise.resolve({
      createOnigScanner: (sources) => new oniguruma.OnigScanner(sources),
      createOnigString: (text) => new oniguruma.OnigString(text),
    }),
    loadGrammar: async () => {
      const file = path.join(HERE, "syntaxes", "omr.tmLanguage.json");
      return parseRawGrammar(fs.readFileSync(file, "utf8"), file);
    },
  });
  return registry.loadGrammar("source.omr");
}

const loaded = grammar();

// [text, innermost scope] of each token that is not white space, and whether the text ends with nothing open.
async function coloured(text) {
  const found = [];
  let stack = INITIAL;
  for (const line of text.split("\n")) {
    const result = (await loaded).tokenizeLine(line, stack);
    for (const token of result.tokens) {
      const word = line.slice(token.startIndex, token.endIndex);
      if (word.trim()) found.push([word.trim(), token.scopes.at(-1)]);
    }
    stack = result.ruleStack;
  }
  return { found, closed: stack.depth === 1 };
}

function recipes(folder) {
  return fs
    .readdirSync(folder, { recursive: true })
    .map(String)
    .filter((name) => name.endsWith(".omr") && fs.statSync(path.join(folder, name)).isFile())
    .map((name) => path.join(folder, name));
}

for (const file of [...recipes(path.join(ROOT, "stdlib")), ...recipes(path.join(ROOT, "pipelines"))]) {
  test(path.relative(ROOT, file), async () => {
    const text = fs.readFileSync(file, "utf8");
    const { found, closed } = await coloured(text);
    assert.ok(closed, "a text is still open at the end");
    const plain = found.filter(([, scope]) => scope === "source.omr");
    assert.deepStrictEqual(plain, [], "words without a colour");
    const kinds = found.filter(([, scope]) => scope === "storage.type.omr").length;
    const names = found.filter(([, scope]) => /^(entity\.name\.type|variable\.other\.constant)/.test(scope));
    assert.strictEqual(kinds, names.length, "each declaration has its name");
  });
}

test("what each word is", async () => {
  const text = [
    'model teacher = hf("a\\"b")  # note',
    "filter kept from traces with teacher {",
    "  keep = format_ok and len(answer) <= 50",
    "  at_most = 1 per parent",
    "  batch = 1 pack / gpu",
    "  price = $1.60 / gpu_hour",
    "  watch { from = [a] }",
    "}",
    'let x = """',
    "# no comment",
    '"""',
    "seed = 17",
  ].join("\n");
  const { found } = await coloured(text);
  const scope = (word) => found.find(([text]) => text === word)?.[1];
  const want = {
    model: "storage.type.omr",
    teacher: "entity.name.type.omr",
    hf: "entity.name.function.omr",
    '\\"': "constant.character.escape.omr",
    "# note": "comment.line.number-sign.omr",
    from: "keyword.other.omr",
    keep: "variable.other.property.omr",
    format_ok: "support.function.omr",
    and: "keyword.operator.word.omr",
    answer: "variable.other.omr",
    50: "constant.numeric.omr",
    pack: "keyword.other.unit.omr",
    gpu: "keyword.other.unit.omr",
    "$1.60": "constant.numeric.omr",
    gpu_hour: "keyword.other.unit.omr",
    "# no comment": "string.quoted.triple.omr",
    seed: "keyword.control.omr",
  };
  for (const [word, kind] of Object.entries(want)) assert.strictEqual(scope(word), kind, word);
});
