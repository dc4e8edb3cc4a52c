// Writes the schema of the google provider's resources that terraform/ uses, as JSON.
//
//     node schema.mjs PACKAGE.tgz OUT.json
//
// The package is @cdktf/provider-google, whose classes were generated from the schema that the provider
// publishes. What is read here is what a class says of its resource: names, types, nesting, and whether
// a value can be set, must be set, or comes from the provider. Nothing of the package is kept.

import { createHash } from "node:crypto";
import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { OVERLAY, PACKAGE, RESOURCES } from "./overlay.mjs";

const TYPES = {
  getStringAttribute: "string",
  getNumberAttribute: "number",
  getBooleanAttribute: "bool",
  getListAttribute: ["list", "string"],
  getNumberListAttribute: ["list", "number"],
  getStringMapAttribute: ["map", "string"],
};

const [archive, out] = process.argv.slice(2);
const packed = readFileSync(archive);
const integrity = `sha512-${createHash("sha512").update(packed).digest("base64")}`;
if (integrity !== PACKAGE.integrity) {
  throw new Error(`${archive} is not ${PACKAGE.name} ${PACKAGE.version}: its digest is ${integrity}`);
}
const wanted = new Map([["provider", "provider"], ...RESOURCES.map((name) => [folder(name), name])]);
const sources = new Map();
for (const [path, text] of files(gunzipSync(packed))) {
  const match = /^package\/lib\/([^/]+)\/(?:index|index-structs\/\w+)\.js$/.exec(path);
  if (match && wanted.has(match[1])) {
    sources.set(match[1], `${sources.get(match[1]) ?? ""}\n${text()}`);
  }
}

const schema = { provider: undefined, resources: {} };
for (const [dir, name] of wanted) {
  const source = sources.get(dir);
  if (source === undefined) throw new Error(`the package has no ${dir}`);
  if (name === "provider") schema.provider = provider(source);
  else schema.resources[name] = resource(name, source);
}
writeFileSync(`${out}.part`, `${JSON.stringify(schema)}\n`);
renameSync(`${out}.part`, out);

function folder(resource) {
  return resource.replace(/^google_/, "").replaceAll("_", "-");
}

/** The files of a tar archive: path and a function that gives the text. */
function* files(tar) {
  const field = (at, from, length) => tar.toString("latin1", at + from, at + from + length).split("\0")[0];
  for (let at = 0; at + 512 <= tar.length && tar[at] !== 0; ) {
    const size = Number.parseInt(field(at, 124, 12), 8);
    const prefix = field(at, 345, 155);
    const from = at + 512;
    yield [`${prefix && `${prefix}/`}${field(at, 0, 100)}`, () => tar.toString("utf8", from, from + size)];
    at = from + Math.ceil(size / 512) * 512;
  }
}

function resource(name, source) {
  const classes = new Map();
  for (const [, cls, base, body] of source.matchAll(/^class (\w+) extends ([\w.]+) \{\n([\s\S]*?)^\}/gm)) {
    classes.set(cls, { base, body });
  }
  const [root] = [...classes.values()].filter(({ base }) => base === "cdktf.TerraformResource");
  const block = read(root.body, source, classes);
  apply(block, OVERLAY[name] ?? {}, name);
  return block;
}

/** Attributes and blocks of one class. */
function read(body, source, classes) {
  const block = { attributes: {}, blocks: {} };
  const getter = /^    get (\w+)\(\) \{\n\s+return (cdktf\.Fn\.tolist\()?this\.(get\w+Attribute)\('(\w+)'\)/gm;
  for (const [, camel, set, kind, name] of body.matchAll(getter)) {
    let type = TYPES[kind];
    if (type === undefined) throw new Error(`${kind} of ${name} is unknown`);
    if (set) type = ["set", type[1]];
    block.attributes[name] = { type, ...access(body, camel) };
  }
  for (const [, camel, name] of body.matchAll(/this\._(\w+) = new cdktf\.StringMap\(this, "(\w+)"/g)) {
    block.attributes[name] = { type: ["map", "string"], ...access(body, camel) };
  }
  for (const [, camel, cls, name, set] of body.matchAll(/this\._(\w+) = new (?!cdktf\.)(?:\w+\.)?([A-Z]\w+)\(this, "(\w+)"(?:, (true|false))?\)/g)) {
    nested(block, { camel, cls, name, set: set === "true" }, body, source, classes);
  }
  return block;
}

/** Who sets the value: what has a setter is the user's, what can be reset need not be set. */
function access(body, camel) {
  const upper = camel[0].toUpperCase() + camel.slice(1);
  const settable = body.includes(`    set ${camel}(`) || body.includes(`    put${upper}(`);
  if (!settable) return { computed: true };
  return body.includes(`    reset${upper}(`) ? { optional: true } : { required: true };
}

function nested(block, { camel, cls, name, set }, body, source, classes) {
  const many = cls.endsWith("List");
  const base = cls.replace(/(List|OutputReference)$/, "");
  const inner = read(classes.get(`${base}OutputReference`).body, source, classes);
  const who = access(body, camel);
  // A single one is written as a list or a set of at most one, but timeouts are an object.
  const kind = new RegExp(`type: "(\\w+)",\\s+storageClassType: "${base}(?:List)?",`).exec(source)?.[1];
  const nesting = kind === "struct" ? "single" : set || kind === "set" ? "set" : "list";
  if (who.computed) {
    block.attributes[name] = { type: [nesting, object(inner)], computed: true };
    return;
  }
  block.blocks[name] = { nesting, min: who.required ? 1 : 0, max: many || nesting === "single" ? 0 : 1, block: inner };
}

function object(block) {
  const types = {};
  for (const [name, { type }] of Object.entries(block.attributes)) types[name] = type;
  return ["object", types];
}

function provider(source) {
  const main = source.slice(source.indexOf("class GoogleProvider extends"));
  const block = { attributes: {}, blocks: {} };
  const attribute = /^            (\w+): \{\n\s+value: .*\n\s+isBlock: false,\n\s+type: "(\w+)",\n\s+storageClassType: "(\w+)"/gm;
  const simple = { string: "string", boolean: "bool", number: "number" };
  for (const [, name, kind, storage] of main.matchAll(attribute)) {
    const type = { simple: simple[storage], list: ["list", "string"], set: ["set", "string"], map: ["map", "string"] }[kind];
    block.attributes[name] = { type, optional: true };
  }
  apply(block, OVERLAY.provider ?? {}, "provider");
  return block;
}

/** Lays what the classes do not say over what they say; a path goes through blocks. */
function apply(block, changes, where) {
  for (const [path, change] of Object.entries(changes)) {
    const steps = path.split(".");
    const name = steps.pop();
    const at = steps.reduce((inner, step) => inner?.blocks[step]?.block, block);
    if (at === undefined) throw new Error(`${where} has no ${path}`);
    if (change.block) at.blocks[name] = change;
    else if (change.type || at.attributes[name]) at.attributes[name] = { ...at.attributes[name], ...change };
    else throw new Error(`${where} has no ${path}`);
  }
}
