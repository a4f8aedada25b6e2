// pg-boss: batches, four workers, LISTEN and NOTIFY, the next batch at once when one was full.
import { DSN, PAUSE, config, hit, load, main, sleep } from './harness.mjs'

const [{ PgBoss }, version] = await load('pg-boss')

async function started (options = {}) {
  const boss = new PgBoss({ connectionString: DSN, supervise: false, schedule: false, max: 10, ...options })
  boss.on('error', error => console.error(error.message))
  await boss.start()
  return boss
}

main({
  version,
  left: "SELECT EXISTS (SELECT FROM pgboss.job WHERE name = 'bench' AND state < 'completed')",

  async setup () {
    const boss = await started()
    await boss.createQueue('bench', { notify: true })
  },

  async spawning () {
    const boss = await started()
    return {
      one: (number, sent) => boss.send('bench', config(number, sent)),
      many: (numbers, sent) => boss.insert('bench', numbers.map(number => ({ data: config(number, sent) })))
    }
  },

  async work (concurrency) {
    const boss = await started({ useListenNotify: true })
    await boss.work(
      'bench',
      { batchSize: concurrency, localConcurrency: 4, pollingIntervalSeconds: 0.5, burstWhenBatchFull: true },
      async jobs => {
        for (const job of jobs) hit(job.data.sent)
        if (PAUSE) await sleep(PAUSE)
      }
    )
  }
})
