// What the contract suite runs in: a ZooKeeper, real or simulated, and a network that can fail.
#ifndef POSTKEEPER_TESTS_CONTRACT_WORLD_H_
#define POSTKEEPER_TESTS_CONTRACT_WORLD_H_

#include <functional>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "zkstore/client.h"

namespace postkeeper::zk {

struct WorldClientOptions {
  Duration session_timeout = std::chrono::seconds(10);
  // False: requests over request_bytes_max() are sent all the same.
  bool checks_request_size = true;
};

// Threads: the test's. Clients call back on others in the real world; see Record.
class World {
 public:
  virtual ~World() = default;

  // Starts to connect.
  virtual std::unique_ptr<Client> MakeClient(WorldClientOptions options) = 0;

  // Runs a change of something that a predicate of WaitUntil looks at. To be used in callbacks.
  virtual void Record(const std::function<void()>& change) = 0;
  // Waits until the predicate holds, and gives up after a time that is long in this world. Returns what it said last.
  virtual bool WaitUntil(const std::function<bool()>& predicate) = 0;

  // Breaks the client's connection; it comes back by itself.
  virtual void Disconnect(Client& client) = 0;
  // Breaks it, and it does not come back until Reconnect.
  virtual void CutOff(Client& client) = 0;
  virtual void Reconnect(Client& client) = 0;
  // The server expires the client's session. The client finds out later, when it connects again.
  virtual void Expire(Client& client) = 0;

  // A path where nothing is, and which no other test uses. Its znode is made.
  std::string MakeRoot();

 private:
  int roots_made_ = 0;
};

std::unique_ptr<World> MakeSimulatedWorld(std::uint64_t seed = 1);
// All worlds of a process share one server, which is started by the first.
std::unique_ptr<World> MakeRealWorld();

// A connected client, and what it was told, in the order in which it was told.
class Peer {
 public:
  // An answer that may still be on its way.
  using Pending = std::shared_ptr<std::optional<Response>>;

  // Returns when the client is connected.
  explicit Peer(World& world, WorldClientOptions options = {});
  // Closes the client.
  ~Peer();
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  Client& client() { return *client_; }

  // Sends, and returns at once. If there is a label, "label: CODE" is noted when the answer comes.
  Pending Send(Request request, std::string label = "");
  Response Await(const Pending& pending);
  Response Do(Request request) { return Await(Send(std::move(request))); }

  Response Create(std::string path, std::string data = "", CreateMode mode = CreateMode::kPersistent);
  Response Get(std::string path, Watcher watcher = {});
  Response Set(std::string path, std::string data, std::int32_t version = kAnyVersion);
  Response Delete(std::string path, std::int32_t version = kAnyVersion);
  Response Exists(std::string path, Watcher watcher = {});
  Response Children(std::string path, Watcher watcher = {});
  Response Multi(std::vector<Op> ops);
  Response Sync(std::string path);

  // A watcher that notes "label: TYPE path".
  Watcher Noting(std::string label);
  std::vector<std::string> notes() const;
  void ForgetNotes();
  // Waits until `count` things are noted.
  bool WaitForNotes(std::size_t count);

  // All session events from the beginning.
  std::vector<SessionEvent> sessions() const;
  // Waits until the latest one is this.
  bool WaitForSession(SessionState state);
  std::int64_t session_id() { return client_->session().session_id; }

 private:
  struct Record;  // outlives the client, whose callbacks write to it
  World& world_;
  const std::shared_ptr<Record> record_;
  std::unique_ptr<Client> client_;
};

// How GoogleTest shows them.
inline void PrintTo(Code code, std::ostream* out) { *out << CodeName(code); }

std::string_view WatchTypeName(WatchType type);
// The codes of a multi's operations, by name.
std::vector<std::string> Codes(const Response& response);

}  // namespace postkeeper::zk

#endif  // POSTKEEPER_TESTS_CONTRACT_WORLD_H_
