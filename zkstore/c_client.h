// The real body of zk::Client: a session with a ZooKeeper ensemble, through the ZooKeeper C client.
#ifndef POSTKEEPER_ZKSTORE_C_CLIENT_H_
#define POSTKEEPER_ZKSTORE_C_CLIENT_H_

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "zkstore/client.h"

namespace postkeeper::zk {

enum class LogLevel { kError = 1, kWarning = 2, kInfo = 3, kDebug = 4 };

struct CClientOptions {
  // "host:port,host:port/chroot"; the chroot is optional, and must exist. An IPv6 address has no brackets
  // ("::1:2181"). See CheckHosts.
  std::string hosts;
  // Asked for; the server answers with one within its own bounds (SessionEvent::timeout).
  Duration session_timeout = std::chrono::seconds(10);
  // The largest request that is sent. Above the server's own jute.maxbuffer the server drops the connection.
  std::size_t request_bytes_max = 1'048'575 - 1'024;
  // What the C client has to say: connections made and lost, names that do not resolve; never what a request carries.
  // Runs on any thread, must return soon and must not call the client. Empty: not logged. The level applies to all
  // clients of a process: the C client has only one, and the client made last sets it.
  std::function<void(LogLevel level, std::string_view text)> log_sink;
  LogLevel log_level = LogLevel::kWarning;
};

// OK, or what is wrong with `hosts`. Resolves no names.
absl::Status CheckHosts(std::string_view hosts);

// How it works: the C client owns two threads, one for the socket and one that runs completions and watchers. Two more
// belong to this class: one delivers refusals and timeouts, one makes and closes handles of the C client, which can
// block (in DNS, or while the server takes leave). A mutex makes all four deliver one at a time.
//
// Requests wait here, not in the C client, so nothing unsent is lost in it: when the connection breaks they end with
// kNotConnected. A request that got into the C client at that very moment may still go out on the next connection; it
// ends with kConnectionLoss, which says no more than that.
//
// A request whose time is up keeps its place in the window until the server answers it or the connection is given up
// (after two thirds of the session's timeout without any answer): the server still has to work on it.
//
// The C client finds its servers by name anew whenever it is not connected. If no name can be resolved at the start,
// this is tried again every second.
//
// A server of ZooKeeper 3.8 that is just starting may accept a connection and never answer on it: the C client gives
// it up after two thirds of the session's timeout and then connects. Whoever starts a server himself waits until it
// serves before he makes a client.
//
// last_answered_sent_at() knows nothing of the C client's own pings: whoever fences himself with it sends a request
// now and then.
//
// Closing: requests on their way end with kClosed at once, watchers fire with kLost, observers see kClosed; then the
// C client takes leave of the server, for which it may wait up to 5 seconds if the server hangs. Close returns earlier
// if its timeout has passed; the destructor always waits.
class CClient : public Client {
 public:
  static constexpr int kClientsMax = 64;  // in one process, at one time

  // Starts to connect and returns at once.
  CClient(Environment& environment, CClientOptions options);
  ~CClient() override;
  CClient(const CClient&) = delete;
  CClient& operator=(const CClient&) = delete;

  void Submit(Request request, Completion done) override;
  void ObserveSession(SessionObserver observer) override;
  SessionEvent session() const override;
  Instant last_answered_sent_at() const override;
  std::size_t watched_path_bytes() const override;
  std::size_t request_bytes_max() const override;
  void Close(Duration timeout) override;

 private:
  class Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace postkeeper::zk

#endif  // POSTKEEPER_ZKSTORE_C_CLIENT_H_
