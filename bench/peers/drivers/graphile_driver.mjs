// Graphile Worker: a local queue and batched completion, as in its own performance test; the local queue's size is given.
import { DSN, PAUSE, config, hit, load, main, sleep } from './harness.mjs'

const [{ Logger, makeWorkerUtils, run }, version] = await load('graphile-worker')
const logger = new Logger(() => () => {})

main({
  version,
  left: 'SELECT EXISTS (SELECT FROM graphile_worker._private_jobs)',

  async setup () {
    const utils = await makeWorkerUtils({ connectionString: DSN, logger })
    await utils.migrate()
  },

  async spawning (callers) {
    const utils = await makeWorkerUtils({ connectionString: DSN, logger, maxPoolSize: callers })
    return {
      one: (number, sent) => utils.addJob('noop', config(number, sent)),
      many: (numbers, sent) => utils.addJobs(numbers.map(number => ({ identifier: 'noop', payload: config(number, sent) })))
    }
  },

  async work (concurrency) {
    const worker = {
      connectionString: DSN,
      concurrentJobs: concurrency,
      maxPoolSize: Math.min(concurrency + 1, Number(process.env.BENCH_POOL ?? 50)),
      localQueue: { size: Number(process.env.BENCH_LOCAL_QUEUE), refetchDelay: { durationMs: 10 } },
      completeJobBatchDelay: 0,
      failJobBatchDelay: 0,
      logger
    }
    const runner = await run({
      preset: { worker },
      noHandleSignals: true,
      taskList: { noop: async payload => { hit(payload.sent); if (PAUSE) await sleep(PAUSE) } }
    })
    await runner.promise
  }
})
