// node lookup.js NAME...: what c-ares finds (dns.resolve4, dns.resolve6), one line a name: name, milliseconds, addresses
// or a word. dns.lookup is the C library's getaddrinfo, which lookup.c asks.
const { Resolver } = require('node:dns').promises

const absent = new Set(['ENOTFOUND', 'ENODATA'])

async function lookup(resolver, name) {
  const from = Date.now()
  const both = await Promise.allSettled([resolver.resolve4(name), resolver.resolve6(name)])
  const words = both.flatMap((one) => {
    if (one.status === 'fulfilled') return one.value
    return absent.has(one.reason.code) ? [] : [`error:${one.reason.code}`]
  })
  console.log([name, Date.now() - from, ...(words.length ? words : ['none'])].join(' '))
}

async function main() {
  const resolver = new Resolver()
  for (const name of process.argv.slice(2)) await lookup(resolver, name)
}

main()
