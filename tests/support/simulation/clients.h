// The clients of a simulated cluster.
#ifndef POSTKEEPER_TESTS_SUPPORT_SIMULATION_CLIENTS_H_
#define POSTKEEPER_TESTS_SUPPORT_SIMULATION_CLIENTS_H_

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "service/consume_session.h"
#include "tests/support/simulation/cluster.h"
#include "tests/support/simulation/options.h"
#include "tests/support/simulation/simulated_leg.h"

namespace postkeeper {

// Producers with and without request_id and dedup_ids, some of whose messages are delayed, and that send some messages
// again, of their own call or of others; consumers with Dequeue and with streams,
// that ack, ack late, nack, release, or die, on the stream or by a call; subscribers from "earliest", from "latest" and
// behind a position, which go on behind their last position when a stream ends. Each call goes to any replica, and each
// is one coroutine on the world's executor. What they see goes into the cluster's history.
class Clients {
 public:
  Clients(Cluster& cluster, const SimulationOptions& options);

  void Start();
  // The operations are used up.
  bool HasWorked() const { return operations_left_ <= 0; }
  // No new messages, and everything that comes is acked, until Finish.
  void BeginCalm();
  // All go; IsGone when they have.
  void Finish();
  bool IsGone() const { return actors_ == 0; }

 private:
  using AppendAnswer = absl::StatusOr<Appended>;
  using Given = std::vector<std::size_t>;  // of history.deliveries
  using DequeueAnswer = absl::StatusOr<Given>;
  using SettleAnswer = absl::StatusOr<std::vector<SettleFailure>>;
  using StreamAnswer = Cluster::StreamEnd;

  // A Consume stream, at both of its ends.
  struct Stream {
    int number = 0;
    Moment opened;
    bool is_open = true;      // for the client
    bool is_leaving = false;  // the server is to forget it
    bool releases = false;
    Instant last_arrival{};
    Instant last_sent{};
    std::shared_ptr<QueueEngine> engine;      // at the replica that the client is connected to, once it is there
    std::shared_ptr<ConsumeSession> session;  // there
    std::unique_ptr<Signal> wake;             // on the engine's strand
    std::optional<absl::Status> end;
    bool has_opened = false;
    std::int64_t last_sequence = 0;
    std::map<std::int64_t, std::shared_ptr<History::Settle>> settling;  // by the frame's sequence
    std::deque<std::int64_t> unanswered;                                // the session has taken them
    std::set<std::int64_t> answered;                                    // the client has heard of it
  };
  using StreamPtr = std::shared_ptr<Stream>;
  // A Subscribe stream.
  struct Reading {
    bool is_open = true;
    int frames_on_their_way = 0;
    Instant last_arrival{};
  };
  using SubscriberPtr = std::shared_ptr<History::Subscriber>;

  void Act(Task<void> task);
  Task<void> Actor(Task<void> task);
  Task<void> Pause();
  Task<void> WaitFor(Duration duration);
  bool TakeOperation();
  int PickSlot();
  Name QueueName(int i) const { return SimulatedReplica::QueueName(Cat("q", i)); }
  Name TopicName(int i) const { return SimulatedReplica::TopicName(Cat("t", i)); }
  // At a client, behind what was sent to it before.
  void SendFrame(Instant& last_arrival, std::function<void()> receive);

  Task<void> Produce();
  void GiveDedupIds(const std::shared_ptr<History::Append>& record);
  void Remember(const std::shared_ptr<History::Append>& record, const Appended& answer, bool is_first_try);
  template <typename Engine>
  Task<void> Append(Name name);
  template <typename Engine>
  Task<std::optional<AppendAnswer>> TryAppend(Name name, std::shared_ptr<History::Append> record, Duration delay);
  template <typename Engine>
  Task<void> RepeatLater(Name name, std::shared_ptr<History::Append> record, Duration delay, Appended first);
  template <typename Engine>
  Task<AppendAnswer> ServeAppend(std::shared_ptr<Engine> engine, ProcessPtr process,
                                 std::shared_ptr<History::Append> record, Duration delay);

  Task<void> Poll();
  Task<void> Dequeue(Name name);
  Task<DequeueAnswer> ServeDequeue(std::shared_ptr<QueueEngine> engine, ProcessPtr process, CheckedDequeue request,
                                   std::shared_ptr<QueueEngine::CallHandle> handle, Moment asked);
  std::size_t Record(const Process& process, const QueueEngine& engine, const Delivery& delivery, int stream,
                     Moment asked);
  static History::Settle::Answer AnswerOf(const std::vector<SettleFailure>& failures);
  Task<void> Consume(Name name);
  Task<StreamAnswer> ServeStream(std::shared_ptr<QueueEngine> engine, ProcessPtr process, Name name, StreamPtr stream);
  void RecordOnStream(const Process& process, const QueueEngine& engine, const Delivery& delivery,
                      const Stream& stream);
  ConsumeSession::Client ClientOf(ProcessPtr process, Name name, StreamPtr stream);
  SimulatedLeg::Witness WitnessOf(StreamPtr stream, std::vector<HeldLease> held);
  void RecordSettled(const ProcessPtr& process, const std::shared_ptr<QueueEngine>& engine, const StreamPtr& stream,
                     std::int64_t sequence, const std::vector<SettleFailure>& failures);
  Task<bool> SettleOnStream(StreamPtr stream, std::shared_ptr<History::Settle> record, SettleOrders orders);
  void LeaveInOrder(const StreamPtr& stream);
  void Leave(const StreamPtr& stream, bool releases);
  Task<void> WorkOn(Name name, std::size_t delivery, StreamPtr stream);
  Task<void> Settle(Name name, std::size_t delivery, std::optional<CheckedNacks> nacks, StreamPtr stream);
  Task<SettleAnswer> ServeSettle(std::shared_ptr<QueueEngine> engine, ProcessPtr process, SettleOrders orders,
                                 std::shared_ptr<History::Settle> record);

  SubscriberPtr AddSubscriber(int topic, std::string name, bool is_from_earliest);
  Task<void> AddSubscribersNowAndThen();
  Task<void> Subscribe(Name name, SubscriberPtr subscriber);
  Task<StreamAnswer> ServeSubscribe(std::shared_ptr<TopicEngine> engine, ProcessPtr process, SubscriberPtr subscriber,
                                    std::shared_ptr<Reading> reading);
  void Receive(History::Subscriber& subscriber, const TopicEngine::Step& step);
  void Fail(History::Subscriber& subscriber, const absl::Status& status);
  void Violate(const std::string& text) { cluster_.history().Violate(cluster_.environment().Now(), text); }

  Cluster& cluster_;
  History& history_;
  SimulatedRandom& random_;
  const SimulationOptions options_;
  int operations_left_;
  bool is_calm_ = false;
  bool is_over_ = false;
  int actors_ = 0;
  int messages_made_ = 0;
  int streams_made_ = 0;
  std::vector<StreamPtr> streams_;
  std::map<LeaseToken, std::size_t> on_streams_;  // of history.deliveries
  std::vector<std::shared_ptr<Reading>> readings_;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_TESTS_SUPPORT_SIMULATION_CLIENTS_H_
