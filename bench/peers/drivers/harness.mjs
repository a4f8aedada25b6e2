// The roles of harness.py for Node.
import fs from 'node:fs'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

export const DSN = process.env.BENCH_DSN
export const TEXT = 'x'.repeat(72)
const SLOT = Number(process.env.BENCH_SLOT ?? 0)
const SAMPLES = 1 << 18
const HEADER = 8
const BATCH = 1000
const TICK = 0.01
export const PAUSE = Number(process.env.BENCH_PAUSE ?? 0) * 1000 // milliseconds that a job sleeps
const FLUSH = 4 // milliseconds: Node cannot map the tally, so it writes to it now and then

const file = fs.openSync(process.env.BENCH_TALLY, 'r+')
const base = SLOT * (HEADER + SAMPLES) * 8
const header = new BigUint64Array(HEADER) // count, first, last, cpu, waits
const waits = []
let count = 0
let written = 0
let timer = null

// A package of the peers' environment, and its version: the drivers do not live beside their node_modules.
export async function load (name) {
  const root = process.env.BENCH_MODULES
  const described = fs.readFileSync(new URL(`node_modules/${name}/package.json`, pathToFileURL(root)))
  const module = await import(pathToFileURL(createRequire(root).resolve(name)))
  return [module, JSON.parse(described).version]
}

const now = () => process.hrtime.bigint()
const seconds = since => Number(now() - since) / 1e9
export const sleep = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds))
function cpu () {
  const used = process.cpuUsage()
  return (used.user + used.system) / 1e6
}

function flush () {
  timer = null
  if (written < waits.length && waits.length <= SAMPLES) {
    const fresh = BigUint64Array.from(waits.slice(written))
    fs.writeSync(file, Buffer.from(fresh.buffer), 0, fresh.byteLength, base + (HEADER + written) * 8)
    written = waits.length
  }
  header[0] = BigInt(count)
  header[4] = BigInt(written)
  fs.writeSync(file, Buffer.from(header.buffer), 0, header.byteLength, base)
}

export function hit (sent) {
  const at = now()
  if (count === 0) {
    header[1] = at
    header[3] = BigInt(Math.round(cpu() * 1e9))
  }
  if (sent) waits.push(at - BigInt(sent))
  count++
  header[2] = at
  timer ??= setTimeout(flush, FLUSH)
}

const range = (first, last) => Array.from({ length: last - first }, (_, index) => first + index)
export const config = (number, sent) => ({ number, text: TEXT, sent })

async function shared (count, callers, call) {
  let next = 0
  const some = async () => { while (next < count) await call(next++) }
  await Promise.all(Array.from({ length: callers }, some))
}

async function enqueue (queue, n, mode) {
  const spawner = await queue.spawning(mode === 'c10' ? 10 : 1)
  await spawner.one(0, null)
  const used = cpu()
  const start = now()
  if (mode === 'bulk') {
    for (let first = 1; first < n; first += BATCH) await spawner.many(range(first, Math.min(first + BATCH, n)), null)
  } else {
    await shared(n - 1, mode === 'c10' ? 10 : 1, number => spawner.one(number, null))
  }
  return { seconds: seconds(start), count: n - 1, cpu: cpu() - used }
}

async function latency (queue, n, gap) {
  const spawner = await queue.spawning(1)
  await spawner.one(0, null)
  for (let number = 0; number < n; number++) {
    await sleep(gap * 1000)
    await spawner.one(number, now().toString())
  }
  await sleep(1000)
  return { count: n }
}

async function steady (queue, n, rate) {
  const size = rate ? Math.min(Math.max(Math.floor(rate * TICK), 1), BATCH) : BATCH
  const spawner = await queue.spawning(1)
  const start = now()
  for (let first = 0; first < n; first += size) {
    const early = rate ? first / rate - seconds(start) : 0
    if (early > 0) await sleep(early * 1000)
    await spawner.many(range(first, Math.min(first + size, n)), now().toString())
  }
  return { started: Number(start) / 1e9, ended: Number(now()) / 1e9, count: n }
}

const given = process.argv.slice(3)
const option = name => given.includes('--' + name) ? given[given.indexOf('--' + name) + 1] : undefined

export async function main (queue) {
  const n = Number(option('n'))
  const say = result => { console.log(JSON.stringify(result ?? {})); process.exit(0) }
  switch (process.argv[2]) {
    case 'info': return say({ version: queue.version, left: queue.left, bulk: true })
    case 'setup': return say(await queue.setup())
    case 'enqueue': return say(await enqueue(queue, n, option('mode')))
    case 'latency': return say(await latency(queue, n, Number(option('gap'))))
    case 'steady': return say(await steady(queue, n, Number(option('rate'))))
    default: await queue.work(Number(option('concurrency')))
  }
}
