// A deterministic ZooKeeper in memory, on virtual time.
//
//   SimulatedEnvironment environment(seed);
//   zk::SimulatedEnsemble ensemble(environment);
//   zk::SimulatedClient client(ensemble);       // simulated_client.h: what can go wrong on its connection is there
//   zk::Response made = environment.RunTask(client.Create("/a", "data"));
#ifndef POSTKEEPER_ZKSTORE_SIMULATOR_H_
#define POSTKEEPER_ZKSTORE_SIMULATOR_H_

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "zkstore/client.h"
#include "zkstore/simulated_environment.h"
#include "zkstore/simulated_pipe.h"
#include "zkstore/simulated_tree.h"

namespace postkeeper::zk {

class SimulatedClient;

struct SimulatedEnsembleOptions {
  // How long anything takes on the network, one way.
  Duration latency_min = std::chrono::microseconds(100);
  Duration latency_max = std::chrono::microseconds(500);
  // Sessions expire at multiples of it; a session's timeout is kept between 2 and 20 of it.
  Duration tick = std::chrono::milliseconds(500);
};

// The server side of one connection, and the network between.
struct SimulatedConnection {
  std::int64_t number = 0;
  SimulatedClient* client = nullptr;  // null: the client has given this connection up
  std::int64_t session_id = 0;        // 0: the handshake has not been done
  bool is_open = true;                // false: the server will not answer, nor tell of watches
  std::shared_ptr<SimulatedPipe> to_server;
  std::shared_ptr<SimulatedPipe> to_client;
  std::set<std::string> data_watches;
  std::set<std::string> child_watches;
};

// The server side: the tree, sessions that expire, watches, and the connections of its clients.
//
// It is as one ZooKeeper 3.8.0 server to which every client is connected: requests are carried out at the moment in
// which they arrive, one after the other. A follower that lags behind can be had only in one respect, the one that
// matters to correctness: a request can be held back in the network and arrive after its client has gone on in
// the same session over another connection (SimulatedClient::HoldNext, Disconnect). It is then carried out if the
// session still lives, as with a real ensemble.
//
// One thread, that of the environment. The environment must outlive it, and it must outlive its clients.
class SimulatedEnsemble {
 public:
  // jute.maxbuffer: a longer packet makes the server drop the connection that it came from.
  static constexpr std::size_t kPacketBytesMax = 1'048'575;

  explicit SimulatedEnsemble(SimulatedEnvironment& environment, SimulatedEnsembleOptions options = {});
  ~SimulatedEnsemble();
  SimulatedEnsemble(const SimulatedEnsemble&) = delete;
  SimulatedEnsemble& operator=(const SimulatedEnsemble&) = delete;

  // ---- For tests ----

  // All servers stop: connections break (what is on its way is lost), no session expires, nothing can connect. What is
  // stored is kept.
  void Stop();
  // They run again. Every session has its whole timeout to come back.
  void Start();
  // The session ends now, as if its timeout had passed. False: there is no such session.
  bool ExpireSession(std::int64_t session_id);

  const SimulatedTree& tree() const { return tree_; }
  // Told of every change of the tree when it is committed; must not change anything.
  void SetTreeObserver(std::function<void(const TreeEvent&)> observer) { tree_observer_ = std::move(observer); }
  // While it is being told: the session that changes the tree, or that ends.
  std::int64_t writing_session() const { return writing_session_; }
  // Number of the latest transaction.
  std::int64_t zxid() const { return zxid_; }
  std::vector<std::int64_t> sessions() const;
  bool is_running() const { return is_running_; }
  SimulatedEnvironment& environment() { return environment_; }

 private:
  friend class SimulatedClient;

  struct Session {
    Duration timeout;
    Instant expires_at;
    std::int64_t connection = 0;  // number of the open one
  };

  // ---- Called by clients ----

  std::shared_ptr<SimulatedConnection> MakeConnection(SimulatedClient& client);
  // The client gives up the connection: the server forgets its watches. What is still in to_server may arrive yet.
  void Detach(SimulatedConnection& connection);
  SimulatedRandom& random() { return random_; }

  // ---- Arrivals at the server ----

  // Session 0 asks for a new one.
  void ReceiveConnect(SimulatedConnection& connection, std::int64_t session_id, Duration timeout);
  void ReceiveRequest(SimulatedConnection& connection, const Request& request, bool wants_watch, std::int64_t number);
  void ReceivePing(SimulatedConnection& connection);
  // After a reconnect: the client's watches, and the latest zxid that it has seen.
  void ReceiveWatches(SimulatedConnection& connection, const std::vector<std::string>& data,
                      const std::vector<std::string>& exists, const std::vector<std::string>& children,
                      std::int64_t seen_zxid);
  void ReceiveClose(SimulatedConnection& connection);

  // ---- Within the server ----

  Response Process(const Request& request, std::int64_t session_id);
  void AddWatch(SimulatedConnection& connection, const Request& request, Code code);
  void Tell(const std::vector<TreeEvent>& events);
  static void SendEvent(SimulatedConnection& connection, WatchEvent event);
  // The server closes the connection.
  void Drop(SimulatedConnection& connection);
  bool Touch(std::int64_t session_id);  // false: there is no such session
  void EndSession(std::int64_t session_id);
  void ScheduleExpiry(std::int64_t session_id);
  void CheckExpiry(std::int64_t session_id);
  std::int64_t WallNowMs() const;
  void ForgetFinishedConnections();

  SimulatedEnvironment& environment_;
  const SimulatedEnsembleOptions options_;
  SimulatedRandom random_;
  SimulatedTree tree_;
  std::function<void(const TreeEvent&)> tree_observer_;
  std::int64_t writing_session_ = 0;
  bool is_running_ = true;
  std::int64_t zxid_ = 0;
  std::int64_t sessions_made_ = 0;
  std::int64_t connections_made_ = 0;
  std::map<std::int64_t, Session> sessions_;
  std::map<std::int64_t, std::shared_ptr<SimulatedConnection>> connections_;
  std::shared_ptr<SimulatedEnsemble*> self_;  // alarms ask it whether the ensemble is still there
};

}  // namespace postkeeper::zk

#include "zkstore/simulated_client.h"  // IWYU pragma: export

#endif  // POSTKEEPER_ZKSTORE_SIMULATOR_H_
