// The one door to ZooKeeper. Three bodies stand behind it: the ZooKeeper C client (c_client.h), the deterministic
// simulator (simulator.h), and a wrapper that injects faults (fault_injector.h). One contract suite
// (tests/contract) runs on the first two.
#ifndef POSTKEEPER_ZKSTORE_CLIENT_H_
#define POSTKEEPER_ZKSTORE_CLIENT_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "zkstore/environment.h"
#include "zkstore/task.h"

namespace postkeeper::zk {

// How one request ended. The names follow ZooKeeper's; the comments say what may be concluded.
enum class Code {
  kOk = 0,

  // Definite: the server (or this client, before sending) refused the request, and it changed nothing.
  kNoNode,
  kNodeExists,
  kBadVersion,
  kNotEmpty,
  kNoChildrenForEphemerals,
  kBadArguments,
  kNoAuth,
  kInvalidAcl,
  kRuntimeInconsistency,  // in a multi: the operation after the one that failed
  kRolledBack,            // in a multi: the operation before the one that failed (ZooKeeper answers it with code 0)
  kThrottled,
  kSessionMoved,
  kTooLarge,      // the request is over Client::request_bytes_max() and was not sent
  kNotConnected,  // there was no connection, or the queue of unsent requests was full; nothing was sent
  kOtherDefinite,

  // Unknown: the request was sent and its reply was lost. It may have been carried out, or may still be.
  kConnectionLoss,
  kTimeout,         // no reply within Request::timeout; a reply that comes later is dropped
  kSessionExpired,  // as above; but once the expiry is known, the request can no longer be carried out later
  kClosed,          // this client was closed
};

std::string_view CodeName(Code code);
// True for kOk and the definite refusals: what the code says is what happened.
bool IsDefinite(Code code);

struct Stat {
  std::int64_t czxid = 0;
  std::int64_t mzxid = 0;
  std::int64_t pzxid = 0;
  std::int64_t ctime_ms = 0;  // the leader's clock
  std::int64_t mtime_ms = 0;
  std::int32_t version = 0;
  std::int32_t cversion = 0;
  std::int64_t ephemeral_owner = 0;
  std::int32_t data_length = 0;
  std::int32_t num_children = 0;

  // How many children were ever created below this znode; equal to the next sequence number
  // (ZooKeeper counts both creations and deletions in cversion; DataNode.copyStat).
  std::int64_t children_created() const { return (std::int64_t{cversion} + num_children) / 2; }

  friend bool operator==(const Stat&, const Stat&) = default;
};

enum class CreateMode { kPersistent, kEphemeral, kPersistentSequential, kEphemeralSequential };

// The version argument that matches any version. Never to be used on a znode whose version is a fence.
inline constexpr std::int32_t kAnyVersion = -1;

// One operation of a multi.
struct Op {
  enum class Kind { kCreate, kSet, kDelete, kCheck };
  Kind kind;
  std::string path;
  std::string data;
  std::int32_t version = kAnyVersion;
  CreateMode mode = CreateMode::kPersistent;

  static Op Create(std::string path, std::string data, CreateMode mode = CreateMode::kPersistent);
  static Op Set(std::string path, std::string data, std::int32_t version);
  static Op Delete(std::string path, std::int32_t version = kAnyVersion);
  static Op Check(std::string path, std::int32_t version);
};

struct OpResult {
  Code code = Code::kOk;
  std::string path;  // of a create: the path made
  Stat stat;         // of a set
};

enum class WatchType { kCreated, kDeleted, kChanged, kChildren, kLost };

struct WatchEvent {
  WatchType type = WatchType::kLost;  // kLost: the watch is gone with its session; look again
  std::string path;
};

// Runs at most once. Like a completion, it must hand over and return. It is called before the completion of any
// request whose reply the server sent after the event.
using Watcher = absl::AnyInvocable<void(WatchEvent)>;

enum class Priority { kSettle, kNormal, kBulk };  // who goes first when the session's window is full

// Generous for a request that is on its way; a caller with a deadline of its own sets less.
inline constexpr Duration kRequestTimeout = std::chrono::seconds(10);

struct Request {
  enum class Kind { kCreate, kGet, kSet, kDelete, kExists, kChildren, kMulti, kSync };
  Kind kind = Kind::kGet;
  std::string path;
  std::string data;                    // kCreate, kSet
  std::int32_t version = kAnyVersion;  // kSet, kDelete
  CreateMode mode = CreateMode::kPersistent;
  std::vector<Op> ops;  // kMulti
  Watcher watcher;      // kGet, kExists, kChildren; empty = no watch
  Priority priority = Priority::kNormal;
  Duration timeout = kRequestTimeout;
};

struct Response {
  Code code = Code::kOk;
  std::string path;                   // kCreate: the path made
  std::string data;                   // kGet
  Stat stat;                          // kGet, kSet, kExists, kChildren
  std::vector<std::string> children;  // kChildren: names, sorted
  std::vector<OpResult> results;      // kMulti: one per operation; empty if the outcome is unknown
  std::int64_t zxid = 0;              // not filled by the C client, which does not tell it
};

enum class SessionState { kConnecting, kConnected, kExpired, kClosed };

struct SessionEvent {
  SessionState state = SessionState::kConnecting;
  std::int64_t session_id = 0;
  Duration timeout{};  // as negotiated; set when kConnected
};

// One ZooKeeper session at a time.
//
// How it works: requests are sent in the order of the calls to Submit (within one priority; a request waits while the
// session's window of kInFlightBytesMax and kInFlightRequestsMax is full). The server answers in order. When the
// connection breaks, requests on their way end with kConnectionLoss, later ones with kNotConnected until there is a
// connection again; the session and its ephemerals live on. When the server declares the session expired, requests on
// their way end with kSessionExpired, all watches fire with kLost, and the client makes a new session by itself
// (observers see kExpired, then kConnected with another session_id). A session is never given up for another reason.
//
// Threads: all calls are thread-safe. Completions, watchers and session observers run on a thread of the client, one
// at a time, in the order of what the server sent; they must not block and must not call Close. The awaitable calls
// resume on the caller's executor.
//
// Lifetime: destroying the client closes it. Every completion runs exactly once, at the latest then, with kClosed.
class Client {
 public:
  using Completion = absl::AnyInvocable<void(Response)>;
  using SessionObserver = std::function<void(const SessionEvent&)>;

  static constexpr std::size_t kInFlightBytesMax = 8 << 20;
  static constexpr int kInFlightRequestsMax = 256;
  static constexpr int kQueuedRequestsMax = 65536;  // waiting for the window; past it: kNotConnected

  virtual ~Client() = default;

  virtual void Submit(Request request, Completion done) = 0;

  // Observers are called at every change of state, and once at registration with the state of that moment.
  virtual void ObserveSession(SessionObserver observer) = 0;
  virtual SessionEvent session() const = 0;

  // When the latest request that has been answered was sent. Self-fencing counts from here, since a server may have
  // begun to count the session's timeout at that moment.
  virtual Instant last_answered_sent_at() const = 0;

  // Bytes of the paths of all outstanding watches. On reconnect the C client sends them in one packet under 1 MiB.
  virtual std::size_t watched_path_bytes() const = 0;

  // The largest request that is sent: jute.maxbuffer (1,048,575) less room for the header.
  virtual std::size_t request_bytes_max() const = 0;

  // Closes the session, which removes its ephemerals at once; returns when the server has answered or `timeout` has
  // passed. Later calls end with kClosed.
  virtual void Close(Duration timeout) = 0;

  // The awaitable calls, each one Submit.
  Task<Response> Call(Request request);
  Task<Response> Create(std::string path, std::string data, CreateMode mode = CreateMode::kPersistent);
  Task<Response> Get(std::string path, Watcher watcher = {});
  Task<Response> Set(std::string path, std::string data, std::int32_t version);
  Task<Response> Delete(std::string path, std::int32_t version);
  Task<Response> Exists(std::string path, Watcher watcher = {});
  Task<Response> Children(std::string path, Watcher watcher = {});
  Task<Response> Multi(std::vector<Op> ops, Priority priority = Priority::kNormal);
  Task<Response> Sync(std::string path);
};

// An upper bound of the bytes that the request takes on the wire.
std::size_t WireBytes(const Request& request);

}  // namespace postkeeper::zk

#endif  // POSTKEEPER_ZKSTORE_CLIENT_H_
