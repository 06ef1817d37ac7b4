// A client of the simulated ZooKeeper, with all that can go wrong on its way there.
#ifndef POSTKEEPER_ZKSTORE_SIMULATED_CLIENT_H_
#define POSTKEEPER_ZKSTORE_SIMULATED_CLIENT_H_

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "zkstore/client.h"
#include "zkstore/simulator.h"

namespace postkeeper::zk {

struct SimulatedClientOptions {
  Duration session_timeout = std::chrono::seconds(10);
  // Between the loss of a connection and the next attempt, and between attempts.
  Duration reconnect_delay_min = std::chrono::milliseconds(10);
  Duration reconnect_delay_max = std::chrono::milliseconds(100);
  // Runs the timers and what is told to the user; empty: the environment's.
  asio::any_io_executor executor;
};

// Behaves as client.h says and as CClient (c_client.h) does: it pings after a third of the session timeout without
// traffic, gives a connection up after two thirds without an answer, and on a new connection asks for its watches
// again. Pings do not count in last_answered_sent_at. Completions, watchers and observers run on the environment's
// executor, never inside the call that causes them, but for Close and the destructor, which run what is left.
//
// The test decides what goes wrong. Of a broken connection it says what becomes of the requests that have not reached
// the server yet; replies that are on their way are always lost. Whatever becomes of them, the client sees
// kConnectionLoss.
//
// One thread, that of the environment.
class SimulatedClient : public Client {
 public:
  enum class OnTheWay {
    kLost,       // they never reach the server
    kDelivered,  // the server carries them out; the replies are lost
    kHeld,       // late copies: they stay in the network until ReleaseHeld
  };
  using Predicate = std::function<bool(const Request&)>;

  explicit SimulatedClient(SimulatedEnsemble& ensemble, SimulatedClientOptions options = {});
  ~SimulatedClient() override;

  void Submit(Request request, Completion done) override;
  void ObserveSession(SessionObserver observer) override;
  SessionEvent session() const override { return session_; }
  Instant last_answered_sent_at() const override { return last_answered_sent_at_; }
  std::size_t watched_path_bytes() const override { return watched_path_bytes_; }
  std::size_t request_bytes_max() const override { return kRequestBytesMax; }
  // Takes no virtual time: what is on its way to the server gets there before it. If the server cannot be reached, the
  // session stays until it expires.
  void Close(Duration timeout) override;

  // ---- For tests: the network ----

  // The connection breaks now; the client connects again by itself, after the delay of its options.
  void Disconnect(OnTheWay on_the_way = OnTheWay::kLost);
  // While false, every attempt to connect fails. A connection that is there stays.
  void SetConnectable(bool is_connectable);
  // While false, nothing gets through in either direction, and nobody is told: first the client gives its connection
  // up, then the server expires the session. A shorter pause only delays.
  void SetReachable(bool is_reachable);
  // While false, nothing that comes from the server is read, as while the process is stopped: what was sent goes on its
  // way. To stop the timers as well is up to whoever gave options.executor.
  void SetReads(bool reads);
  // The next request that matches breaks the connection: it is lost on its way to the server, or carried out and its
  // reply lost.
  void LoseNext(Predicate predicate);
  void LoseReplyToNext(Predicate predicate);
  // The next request that matches is kept back in the network, and so is everything sent after it on the same
  // connection. After a Disconnect they are late copies: carried out once released, if the session still lives.
  void HoldNext(Predicate predicate);
  // What is held goes on its way, and nothing more is held. How many requests and pings were held.
  std::size_t ReleaseHeld();
  // What is held is lost for good.
  void LoseHeld();

  // Nothing is heard of this client any more, as after a crash of its process; the server finds out when the session
  // expires. Close and the destructor then only run what is left.
  void Abandon(OnTheWay on_the_way = OnTheWay::kLost);

  // While false, requests over request_bytes_max() are sent all the same.
  void SetChecksRequestSize(bool checks) { checks_request_size_ = checks; }

  // How many requests were sent to the server, and how many connections were made.
  std::int64_t requests_sent() const { return requests_sent_; }
  std::int64_t connections_made() const { return connections_made_; }

 private:
  friend class SimulatedEnsemble;

  // Less than what the server takes by more than a request's header.
  static constexpr std::size_t kRequestBytesMax = SimulatedEnsemble::kPacketBytesMax - 1024;

  struct Outstanding {
    std::int64_t number = 0;
    Request request;  // only kind and path are left once it is sent
    Watcher watcher;
    Completion done;  // empty: it has timed out, and keeps its place in the window until it is answered
    std::size_t bytes = 0;
    Instant deadline;
    Instant sent_at;
  };

  enum class Fate { kNormal, kRequestLost, kReplyLost, kHeld };
  struct Trap {
    Predicate predicate;
    Fate fate;
  };

  using WatcherTable = std::map<std::string, std::vector<Watcher>>;

  // ---- Arrivals at the client, over connection_ ----

  void OnConnected(std::int64_t session_id, Duration timeout);
  void OnExpired();
  void OnReply(std::int64_t number, Response response);
  void OnPong(std::int64_t zxid);
  void OnEvent(WatchEvent event);
  void OnDropped();

  // ---- The connection ----

  void SetStalled();
  void Connect();
  void ConnectLater();
  void BreakConnection(OnTheWay on_the_way);
  void SendWatches();
  void SendWhatFits();
  void Send(Outstanding outstanding);
  void SetTrap(Predicate predicate, Fate fate);
  Fate TakeFate(const Request& request);
  Duration SessionTimeout() const;  // as negotiated, or as asked for
  void KeepAlive();
  void ScheduleKeepAlive();

  // ---- Outcomes ----

  // Why a request is not sent, or an empty response with kOk.
  Response CheckBeforeSending(const Request& request) const;
  void FailInFlight(Code code);
  void FailQueued(Code code);
  void LoseWatches();
  void AddDeadline(const Outstanding& outstanding);
  void ScheduleDeadlines();
  void OnDeadlines();
  void TimeOut(std::int64_t number);
  void KeepWatcher(Outstanding& outstanding, Code code);
  void SetSession(SessionState state);
  // Fails everything with kClosed and tells all.
  void End();

  // Runs the functions in order, later, on the environment's executor.
  void Notify(absl::AnyInvocable<void()> function);
  void Complete(Completion done, Response response);
  void RunNotifications();

  SimulatedEnsemble& ensemble_;
  SimulatedEnvironment& environment_;
  const SimulatedClientOptions options_;
  const asio::any_io_executor executor_;
  SessionEvent session_;
  SessionEvent told_session_;  // what observers know; notifications are on their way if it differs
  std::vector<SessionObserver> observers_;

  std::shared_ptr<SimulatedConnection> connection_;  // null: none, not even one being made
  std::vector<std::weak_ptr<SimulatedConnection>> old_connections_;
  Instant last_sent_at_;
  Instant last_heard_at_;
  Instant last_answered_sent_at_{};
  std::int64_t seen_zxid_ = 0;

  std::int64_t requests_made_ = 0;
  std::int64_t requests_sent_ = 0;
  std::int64_t connections_made_ = 0;
  std::map<Priority, std::deque<Outstanding>> queued_;
  std::deque<Outstanding> in_flight_;
  std::size_t in_flight_bytes_ = 0;
  std::set<std::pair<Instant, std::int64_t>> deadlines_;
  Instant deadline_alarm_ = Instant::max();
  WatcherTable data_watchers_;
  WatcherTable exists_watchers_;  // on paths where nothing was
  WatcherTable child_watchers_;
  std::size_t watched_path_bytes_ = 0;  // of the three tables and of requests that want a watch

  bool is_closed_ = false;
  bool is_connectable_ = true;
  bool is_reachable_ = true;
  bool reads_ = true;
  bool checks_request_size_ = true;
  std::deque<Trap> traps_;

  std::unique_ptr<Timer> connect_timer_;
  std::unique_ptr<Timer> keep_alive_timer_;
  std::unique_ptr<Timer> deadline_timer_;
  std::deque<absl::AnyInvocable<void()>> notifications_;
  std::shared_ptr<SimulatedClient*> self_;  // what waits in the executor asks it whether the client is still there
};

}  // namespace postkeeper::zk

#endif  // POSTKEEPER_ZKSTORE_SIMULATED_CLIENT_H_
