// Node as a target of the fuzz; see target.py.  Prints its two ports.
'use strict'

const crypto = require('crypto')
const http = require('http')

function summarise (data) {
  const hash = crypto.createHash('sha1').update(data).digest('hex').slice(0, 12)
  return `${data.length} ${hash}`
}

function describe (request, body) {
  const target = Buffer.from(request.url, 'latin1').toString('hex')
  return `${request.method} ${target} ${summarise(body)}`
}

function reportRest (socket, head) {
  const chunks = [head]
  socket.on('data', (chunk) => chunks.push(chunk))
  socket.on('end', () => socket.end(`Rest: ${summarise(Buffer.concat(chunks))}\r\n`))
  socket.on('error', () => {})
  socket.resume()
}

function start (switches) {
  // The requests of each socket that are not answered yet.
  const unanswered = new WeakMap()
  const server = http.createServer((request, response) => {
    const chunks = []
    const others = unanswered.get(request.socket) ?? new Set()
    unanswered.set(request.socket, others.add(request))
    response.on('finish', () => others.delete(request))
    request.on('data', (chunk) => chunks.push(chunk))
    request.on('error', () => {})
    request.on('end', () => {
      response.setHeader('Seen', describe(request, Buffer.concat(chunks)))
      response.setHeader('Content-Length', 0)
      response.end()
    })
  })
  // Node parses ahead.  An error or an end belongs to the last request, so the whole ones
  // before it are answered first.
  const afterAnswers = (socket, job) => {
    const others = [...(unanswered.get(socket) ?? [])]
    if (socket.writable && others.some((request) => request.complete)) {
      setImmediate(afterAnswers, socket, job)
    } else {
      job()
    }
  }
  // The end of the client's side is not yet the end of its requests.
  server.httpAllowHalfOpen = true
  server.on('connection', (socket) => {
    // Node waits for the rest of a request that was cut, although the end has come.
    socket.on('end', () => {
      if (switches && socket.listenerCount('data')) return
      setImmediate(afterAnswers, socket, () => socket.end())
    })
  })
  server.on('clientError', (error, socket) => {
    afterAnswers(socket, () => {
      const words = error.code + '\n'
      socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\n' +
        `Content-Length: ${words.length}\r\n\r\n${words}`)
    })
  })
  server.on('checkExpectation', (request, response) => {
    const words = request.method === 'HEAD' ? '' : 'expectation'
    response.writeHead(417, { 'Content-Length': words.length, Connection: 'close' })
    response.end(words)
  })
  server.on('connect', (request, socket, head) => {
    const seen = `Seen: ${describe(request, Buffer.alloc(0))}\r\n`
    if (switches) {
      socket.write(`HTTP/1.1 200 OK\r\n${seen}\r\n`)
      reportRest(socket, head)
    } else {
      socket.end(`HTTP/1.1 403 Forbidden\r\n${seen}Content-Length: 0\r\n\r\n`)
    }
  })
  if (switches) {
    server.on('upgrade', (request, socket, head) => {
      const seen = `Seen: ${describe(request, Buffer.alloc(0))}\r\n`
      socket.write(`HTTP/1.1 101 Switching Protocols\r\n${seen}\r\n`)
      reportRest(socket, head)
    })
  }
  return new Promise((resolve) => {
    server.listen(0, '127.0.0.1', () => resolve(server.address().port))
  })
}

Promise.all([start(false), start(true)]).then((ports) => console.log(ports.join(' ')))
