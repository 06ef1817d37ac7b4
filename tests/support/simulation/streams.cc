// The clients that consume queues with streams.
#include <algorithm>
#include <utility>

#include "tests/support/simulation/clients.h"

namespace postkeeper {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Answer = History::Settle::Answer;

// In the calm a frame that settles is answered well within this.
constexpr Duration kAnswerPatience = seconds(30);

}  // namespace

Task<void> Clients::Consume(Name name) {
  while (!is_over_) {
    TakeOperation();
    const auto stream = std::make_shared<Stream>();
    stream->number = ++streams_made_;
    stream->opened = cluster_.Now();
    streams_.push_back(stream);
    const bool releases = random_.Chance(0.5);
    cluster_.environment().RunAfter(random_.Between(seconds(1), seconds(40)),
                                    [this, stream, releases] { Leave(stream, releases); });
    Cluster::Work<QueueEngine, StreamAnswer> work = [this, name, stream](std::shared_ptr<QueueEngine> engine,
                                                                         ProcessPtr process) {
      return ServeStream(std::move(engine), std::move(process), name, stream);
    };
    const std::optional<StreamAnswer> answer = co_await cluster_.OpenStream<QueueEngine>(
        cluster_.environment(), Cluster::kClient, PickSlot(), name, std::move(work));
    if (!answer) Leave(stream, false);
    stream->is_open = false;
    std::erase(streams_, stream);
    co_await Pause();
  }
}

// The client goes; `releases`: in good order.
void Clients::Leave(const StreamPtr& stream, bool releases) {
  if (stream->is_leaving && (releases || !stream->releases)) return;
  stream->is_leaving = true;
  stream->releases = releases;
  if (!releases) stream->is_open = false;
  if (!stream->engine) return;  // ServeStream will see it
  asio::post(stream->engine->strand(), [this, stream] {
    if (!stream->session) return;
    if (stream->releases) return LeaveInOrder(stream);
    stream->session->Leave();
    stream->end = absl::OkStatus();
    stream->wake->Notify();
  });
}

void Clients::LeaveInOrder(const StreamPtr& stream) {
  for (History::Delivery& delivery : history_.deliveries) {
    if (delivery.stream == stream->number && !delivery.given_back) delivery.given_back = cluster_.Now();
  }
  CheckedFrame drain;
  drain.drains = true;
  stream->session->Take(std::move(drain));
  stream->session->FinishInput();
}

// At the replica that the client is connected to.
Task<Clients::StreamAnswer> Clients::ServeStream(std::shared_ptr<QueueEngine> engine, ProcessPtr process, Name name,
                                                 StreamPtr stream) {
  if (stream->is_leaving) co_return true;
  stream->wake = std::make_unique<Signal>(process->replica->environment(), engine->strand());
  stream->engine = engine;
  ConsumeSession::Options options;
  options.open.source = name;
  options.open.credit = {7, 1 << 20};
  options.open.heartbeat_interval = seconds(2);
  options.make_leg = [this, process, name, stream, strand = engine->strand()](std::string owner, LegOpening opening,
                                                                              ConsumeLeg::Listener listener) {
    SimulatedLeg::Witness witness = WitnessOf(stream, opening.held);
    return SimulatedLeg::Start(cluster_, process, strand, name, std::move(owner), std::move(opening),
                               std::move(listener), std::move(witness));
  };
  ConsumeSession::Client client = ClientOf(process, name, stream);
  stream->session =
      std::make_shared<ConsumeSession>(process->replica->environment(), engine, std::move(options), std::move(client));
  stream->session->Start();
  while (!stream->end) co_await stream->wake->Wait();
  stream->session.reset();
  stream->engine.reset();
  const absl::Status end = *stream->end;
  const bool was_cut = !end.ok() && stream->has_opened && !process->is_dead && !process->is_leaving;
  if (was_cut) Violate(Cat("G10: a Consume stream ends although its replica works on: ", end.message()));
  if (!end.ok()) co_return end;
  co_return true;
}

void Clients::RecordOnStream(const Process& process, const QueueEngine& engine, const Delivery& delivery,
                             const Stream& stream) {
  const std::size_t record = Record(process, engine, delivery, stream.number, stream.opened);
  on_streams_[delivery.token] = record;
  // The client has gone in good order, and the owner has not heard of it yet.
  if (stream.is_leaving && stream.releases) history_.deliveries[record].given_back = cluster_.Now();
}

ConsumeSession::Client Clients::ClientOf(ProcessPtr process, Name name, StreamPtr stream) {
  ConsumeSession::Client client;
  client.on_opened = [stream](Duration) { stream->has_opened = true; };
  client.on_deliveries = [this, process, name, stream](const LegDeliveries& given) {
    if (process->is_dead || stream->end) return;
    const bool is_local = given.encoded == nullptr;
    for (const Delivery& delivery : given.deliveries) {
      if (is_local) RecordOnStream(*process, *stream->engine, delivery, *stream);
      SendFrame(stream->last_arrival, [this, name, stream, record = on_streams_.at(delivery.token)] {
        if (stream->is_open) Act(WorkOn(name, record, stream));
      });
    }
  };
  client.on_settled = [this, process, stream](std::int64_t sequence, const std::vector<SettleFailure>& failures) {
    if (process->is_dead || stream->end) return;
    if (stream->unanswered.empty() || stream->unanswered.front() != sequence) {
      Violate("G11: a settling frame of a Consume stream is not answered in its turn");
    }
    std::erase(stream->unanswered, sequence);
    const auto record = stream->settling.at(sequence);
    if (!record->answered) RecordSettled(process, stream->engine, stream, sequence, failures);
    const bool is_hidden = failures.empty() && (record->answer == Answer::kStale || record->answer == Answer::kOther);
    if (is_hidden) Violate(Cat("G11: the ack of ", record->text, " is called a success, and was refused"));
    SendFrame(stream->last_arrival, [stream, sequence] { stream->answered.insert(sequence); });
  };
  client.on_heartbeat = [](const ConsumeSession::Heartbeat&) {};
  client.on_end = [this, stream](absl::Status status) {
    if (status.ok() && !stream->unanswered.empty() && !stream->end) {
      Violate("G11: a Consume stream ends in good order without an answer to a settling frame");
    }
    if (!stream->end) stream->end = std::move(status);
    stream->wake->Notify();
  };
  return client;
}

// What another replica does for the stream.
SimulatedLeg::Witness Clients::WitnessOf(StreamPtr stream, std::vector<HeldLease> held) {
  SimulatedLeg::Witness witness;
  const Instant made_at = cluster_.environment().Now();
  witness.on_opened = [this, made_at, held = std::move(held)](const ProcessPtr&,
                                                              const std::shared_ptr<QueueEngine>& engine) {
    const Moment now = cluster_.Now();
    for (const HeldLease& lease : held) {
      const Duration left = lease.remaining - (now.at - made_at);
      history_.announcements.push_back({lease.token, engine->epoch(), now, left});
    }
  };
  witness.on_deliveries = [this, stream](const ProcessPtr& process, const std::shared_ptr<QueueEngine>& engine,
                                         const LegDeliveries& given) {
    for (const Delivery& delivery : given.deliveries) RecordOnStream(*process, *engine, delivery, *stream);
  };
  witness.on_settled = [this, stream](const ProcessPtr& process, const std::shared_ptr<QueueEngine>& engine,
                                      std::int64_t sequence, const std::vector<SettleFailure>& failures) {
    RecordSettled(process, engine, stream, sequence, failures);
  };
  return witness;
}

void Clients::RecordSettled(const ProcessPtr& process, const std::shared_ptr<QueueEngine>& engine,
                            const StreamPtr& stream, std::int64_t sequence,
                            const std::vector<SettleFailure>& failures) {
  const auto record = stream->settling.at(sequence);
  cluster_.Trace(Cat("replica ", process->slot, " answers frame ", sequence, " of stream ", stream->number, ": ",
                     failures.empty() ? std::string("OK") : failures.front().detail));
  record->answered = cluster_.Now();
  record->epoch = static_cast<std::uint64_t>(engine->epoch());
  record->answer = AnswerOf(failures);
  if (!failures.empty()) record->detail = failures.front().detail;
}

// False: the stream has ended, and nobody has heard of the answer.
Task<bool> Clients::SettleOnStream(StreamPtr stream, std::shared_ptr<History::Settle> record, SettleOrders orders) {
  if (!stream->engine || stream->is_leaving || stream->end) co_return false;
  const std::int64_t sequence = ++stream->last_sequence;
  stream->settling[sequence] = std::move(record);
  CheckedFrame frame;
  frame.sequence = sequence;
  frame.ack_tokens = std::move(orders.ack_tokens);
  frame.nacks = std::move(orders.nacks);
  const asio::any_io_executor strand = stream->engine->strand();
  SendFrame(stream->last_sent, [stream, strand, frame] {
    asio::post(strand, [stream, frame] {
      if (!stream->session || stream->end || stream->is_leaving) return;
      stream->unanswered.push_back(frame.sequence);
      stream->session->Take(frame);
    });
  });
  const Instant sent_at = cluster_.environment().Now();
  const bool is_sent_in_calm = is_calm_;
  while (!stream->answered.contains(sequence) && stream->is_open && !stream->is_leaving && !is_over_) {
    if (is_sent_in_calm && cluster_.environment().Now() - sent_at > kAnswerPatience) {
      Violate("G11: a settling frame of a Consume stream is never answered");
      co_return false;
    }
    co_await SleepFor(cluster_.environment(), milliseconds(20));
  }
  co_return stream->answered.contains(sequence);
}

}  // namespace postkeeper
