// How a call of the simulated cluster travels: the templates of cluster.h.
#ifndef POSTKEEPER_TESTS_SUPPORT_SIMULATION_CLUSTER_CALL_H_
#define POSTKEEPER_TESTS_SUPPORT_SIMULATION_CLUSTER_CALL_H_

#include "tests/support/simulation/cluster.h"

namespace postkeeper {

// The link of a call that is at one replica to the others.
template <typename Engine, typename Answer>
class Cluster::Link : public PeerLink {
 public:
  Link(Cluster& cluster, ProcessPtr process, Name name, Work<Engine, Answer> work, int hops, MaybeAppend append)
      : cluster_(cluster),
        process_(std::move(process)),
        name_(std::move(name)),
        work_(std::move(work)),
        hops_(hops),
        append_(append) {}

  Task<bool> Connect(std::string address) override {
    const int to = cluster_.SlotOf(address);
    const ProcessPtr& peer = cluster_.at(to);
    if (peer && !peer->is_dead && cluster_.IsLinkUp(process_->slot, to)) co_return true;
    co_await SleepFor(process_->replica->environment(), std::chrono::seconds(1));
    co_return false;
  }

  Task<Outcome> Relay(std::string address) override {
    const int to = cluster_.SlotOf(address);
    ++cluster_.relayed_;
    cluster_.Trace(Cat("replica ", process_->slot, " relays a call for ", name_.id, " to replica ", to));
    auto serve = [&cluster = cluster_, name = name_, work = work_, hops = hops_ + 1,
                  append = append_](ProcessPtr peer) {
      return cluster.Serve<Engine, Answer>(std::move(peer), name, work, hops, append);
    };
    std::function<Task<Answer>(ProcessPtr)> at_peer = std::move(serve);
    answer = co_await cluster_.Fly<Answer>(process_->replica->environment(), process_->slot, to, std::move(at_peer),
                                           std::chrono::hours(10));
    if (!answer) co_return Outcome::kBroken;
    if (std::is_same_v<Answer, StreamEnd>) co_return Outcome::kAnswered;
    co_return HasReason(answer->status(), Reason::kNoOwner) ? Outcome::kNotOwner : Outcome::kAnswered;
  }

  std::optional<Answer> answer;

 private:
  Cluster& cluster_;
  const ProcessPtr process_;
  const Name name_;
  const Work<Engine, Answer> work_;
  const int hops_;
  const MaybeAppend append_;
};

template <typename Engine, typename Answer>
Task<Answer> Cluster::ServeOnStrand(ProcessPtr process, std::shared_ptr<Engine> engine, Name name,
                                    Work<Engine, Answer> work, int hops, MaybeAppend append) {
  LogHandle handle(engine);
  AppendRoute way = AppendRoute::kOwner;
  if (append) way = co_await RouteAppend(handle, *append, hops > 0);
  if (way == AppendRoute::kHere && !engine->is_serving()) {
    ++appended_elsewhere_;
    Trace(Cat("replica ", process->slot, " appends to ", name.id, " by itself"));
  }
  if (way == AppendRoute::kOwner && !engine->is_serving()) {
    Link<Engine, Answer> link(*this, process, std::move(name), work, hops, append);
    const OwnerRoute route = co_await RouteToOwner(process->replica->environment(), std::move(handle), hops > 0, link);
    if (route.kind == OwnerRoute::Kind::kRelayed) co_return std::move(*link.answer);
    if (route.kind == OwnerRoute::Kind::kBroken) co_return RelayBroken("it broke");
    if (route.kind == OwnerRoute::Kind::kNowhere) co_return NotOwner(route.owner);
  }
  co_return co_await work(std::move(engine), process);
}

// As the services do it behind gRPC.
template <typename Engine, typename Answer>
Task<Answer> Cluster::Serve(ProcessPtr process, Name name, Work<Engine, Answer> work, int hops, MaybeAppend append) {
  if (hops > 1) history_.Violate(environment_.Now(), "G10: a call makes more than one hop");
  if (!process->is_started) co_return MakeError(Reason::kZookeeperUnavailable, "this replica is starting");
  if (process->is_leaving) co_return ReplicaDraining();
  absl::StatusOr<std::shared_ptr<Engine>> engine =
      co_await Open(process->replica->broker(), name, static_cast<Engine*>(nullptr));
  if (!engine.ok()) co_return engine.status();
  const asio::any_io_executor strand = (*engine)->strand();
  Task<Answer> task = ServeOnStrand<Engine, Answer>(process, *engine, std::move(name), std::move(work), hops, append);
  co_return co_await asio::co_spawn(strand, std::move(task), asio::use_awaitable);
}

template <typename Engine, typename Answer>
Task<Answer> Cluster::ServeHere(ProcessPtr process, Name name, Work<Engine, Answer> work) {
  if (!process->is_started) co_return MakeError(Reason::kZookeeperUnavailable, "this replica is starting");
  if (process->is_leaving) co_return ReplicaDraining();
  absl::StatusOr<std::shared_ptr<Engine>> engine =
      co_await Open(process->replica->broker(), name, static_cast<Engine*>(nullptr));
  if (!engine.ok()) co_return engine.status();
  const asio::any_io_executor strand = (*engine)->strand();
  Task<Answer> task = work(*engine, process);
  co_return co_await asio::co_spawn(strand, std::move(task), asio::use_awaitable);
}

template <typename Answer>
Task<void> Cluster::Track(ProcessPtr process, std::function<Task<Answer>(ProcessPtr)> serve, bool is_bounded,
                          std::function<void(Answer)> done) {
  const auto served = served_.insert(served_.end(), Served{environment_.Now(), process, is_bounded});
  Answer answer = co_await serve(process);
  served_.erase(served);
  ++history_.calls_answered;
  if (!process->is_dead) done(std::move(answer));
}

template <typename Answer>
Task<std::optional<Answer>> Cluster::Fly(Environment& at, int from, int to,
                                         std::function<Task<Answer>(ProcessPtr)> serve, Duration deadline) {
  struct Caller {
    Caller(Environment& environment, const asio::any_io_executor& executor) : landed(environment, executor) {}
    Signal landed;
    bool has_landed = false;
    std::optional<Answer> answer;
  };
  const asio::any_io_executor executor = co_await asio::this_coro::executor;
  const auto caller = std::make_shared<Caller>(at, executor);
  const auto flight = std::make_shared<Flight>(Flight{.from = from, .to = to});
  flight->on_landed = [caller, executor] {
    asio::post(executor, [caller] {
      caller->has_landed = true;
      caller->landed.Notify();
    });
  };
  flights_.push_back(flight);
  const Loss loss = TakeLoss(from != kClient);
  auto done = [this, caller, flight, loss](Answer answer) {
    environment_.RunAfter(Latency(), [this, caller, flight, loss, answer = std::move(answer)]() mutable {
      if (flight->is_over) return;
      if (loss != Loss::kReply) caller->answer = std::move(answer);
      Land(flight);
    });
  };
  const bool is_bounded = deadline <= kCallDeadline;
  environment_.RunAfter(Latency(), [this, flight, loss, is_bounded, serve = std::move(serve), done] {
    const ProcessPtr process = Arrive(flight, loss);
    if (process) Spawn(process->replica->environment().executor(), Track<Answer>(process, serve, is_bounded, done));
  });
  const Instant end = at.Now() + deadline;
  while (!caller->has_landed && at.Now() < end) co_await caller->landed.WaitFor(end - at.Now());
  if (!caller->has_landed) Land(flight);
  flight->on_landed = nullptr;
  co_return std::move(caller->answer);
}

template <typename Engine>
Task<std::optional<Cluster::StreamEnd>> Cluster::OpenStream(Environment& at, int from, int to, Name name,
                                                            Work<Engine, StreamEnd> work) {
  std::function<Task<StreamEnd>(ProcessPtr)> serve = [this, name, work](ProcessPtr process) {
    return ServeHere<Engine, StreamEnd>(std::move(process), name, work);
  };
  co_return co_await Fly<StreamEnd>(at, from, to, std::move(serve), std::chrono::hours(10));
}

template <typename Engine, typename Answer>
Task<std::optional<Answer>> Cluster::Call(int slot, Name name, Work<Engine, Answer> work, Duration deadline,
                                          std::function<void()> on_break, MaybeAppend append) {
  std::function<Task<Answer>(ProcessPtr)> serve = [this, name, work, append](ProcessPtr process) {
    return Serve<Engine, Answer>(std::move(process), name, work, 0, append);
  };
  std::optional<Answer> answer = co_await Fly<Answer>(environment_, kClient, slot, std::move(serve), deadline);
  if (!answer && on_break) on_break();
  co_return answer;
}

}  // namespace postkeeper

#endif  // POSTKEEPER_TESTS_SUPPORT_SIMULATION_CLUSTER_CALL_H_
