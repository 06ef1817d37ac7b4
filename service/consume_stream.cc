#include "service/consume_stream.h"

#include <asio/post.hpp>
#include <deque>
#include <utility>

#include "postkeeper/v1/message.pb.h"
#include "service/broker.h"
#include "service/consume_outbox.h"
#include "service/field_checks.h"
#include "service/log_handle.h"
#include "service/logging.h"
#include "service/ordered_answers.h"
#include "service/stream_call.h"
#include "service/wire_codec.h"
#include "zkstore/signal.h"

namespace postkeeper {
namespace {

// While more of the client's is unanswered, nothing is read: settling is never refused, only held by flow control.
constexpr int kUnansweredFramesMax = 256;
constexpr std::int64_t kUnansweredTokensMax = 20'000;

void SetDuration(Duration from, google::protobuf::Duration& to) {
  constexpr std::int64_t kNanosPerSecond = 1'000'000'000;
  to.set_seconds(from.count() / kNanosPerSecond);
  to.set_nanos(static_cast<std::int32_t>(from.count() % kNanosPerSecond));
}

std::int64_t CountTokens(const CheckedFrame& frame) {
  std::size_t tokens = frame.ack_tokens.size();
  for (const CheckedNacks& nacks : frame.nacks) tokens += nacks.lease_tokens.size();
  for (const CheckedExtensions& extensions : frame.extensions) tokens += extensions.lease_tokens.size();
  return static_cast<std::int64_t>(tokens);
}

// How it works. Frames are read and checked on gRPC's thread; everything else is done on the strand of the queue's
// engine. Deliveries go from the engine's callback into the outbox and from there to whoever may write. Each settling
// frame is a task of its own; the answers go out in the order of the frames. What ends the stream because of a frame
// (a broken rule, a settlement that failed) waits in the same order, so that frames before it are answered.
//
// However the stream ends, the consumer is taken from the engine exactly once (Leave). Its leases are released only
// after a drain that the client has asked for and half-closed behind; else they lapse, and their tokens stay good.
class ConsumeStream final : public BidiCall {
 public:
  ConsumeStream(Desk& desk, grpc::CallbackServerContext& context)
      : BidiCall(desk, kMessageServiceName, "Consume", context) {}

  void Start() {
    Hold();
    if (Enter()) ReadMore();
  }

  void AskToLeave(std::string_view why, Duration grace) override {
    bool is_opened = false;
    {
      absl::MutexLock lock(&mutex_);
      is_opened = is_opened_;
      if (is_opened) {
        v1::ConsumeResponse response;
        response.mutable_draining()->set_reason(std::string(why));
        SetDuration(grace, *response.mutable_draining()->mutable_grace());
        control_.push_back({EncodeMessage(response), {}});
      }
    }
    if (!is_opened) return End(ReplicaDraining());
    asio::post(engine_->strand(), [self = Self()] {
      if (self->consumer_) self->engine_->StopConsumer(*self->consumer_);
    });
    Pump();
  }

 private:
  // What one frame of the client's counts for until it is answered.
  struct Cost {
    int frames = 0;
    std::int64_t tokens = 0;
  };
  struct Control {
    grpc::Slice bytes;
    Cost cost;
  };
  struct Answer {
    absl::StatusOr<grpc::Slice> bytes;
    Cost cost;
  };

  std::shared_ptr<ConsumeStream> Self() { return std::static_pointer_cast<ConsumeStream>(shared_from_this()); }

  // ---- Frames in, on gRPC's thread

  bool MayRead() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const bool is_opening = frames_.is_open && !is_opened_;
    return !is_opening && !has_bad_frame_ && unanswered_.frames < kUnansweredFramesMax &&
           unanswered_.tokens < kUnansweredTokensMax;
  }

  void OnFrame(const grpc::ByteBuffer& bytes) override {
    const bool is_first = !frames_.is_open;
    absl::StatusOr<CheckedFrame> frame = Check(bytes);
    if (!frame.ok() && is_first) return End(frame.status());
    if (is_first) first_frame_ = bytes;
    if (is_first) return Open(*std::move(frame));
    const Cost cost{1, frame.ok() ? CountTokens(*frame) : 0};
    {
      absl::MutexLock lock(&mutex_);
      unanswered_.frames += cost.frames;
      unanswered_.tokens += cost.tokens;
      if (!frame.ok()) has_bad_frame_ = true;
    }
    asio::post(engine_->strand(), [self = Self(), cost, frame = std::move(frame)]() mutable {
      if (frame.ok()) {
        self->Act(*std::move(frame), cost);
      } else {
        self->FailInOrder(frame.status());
      }
    });
  }

  absl::StatusOr<CheckedFrame> Check(const grpc::ByteBuffer& bytes) {
    v1::ConsumeRequest request;
    if (absl::Status status = DecodeRequest(bytes, "ConsumeRequest", request); !status.ok()) return status;
    absl::MutexLock lock(&mutex_);  // MayRead looks at the state
    return CheckFrame(std::move(request), frames_);
  }

  void OnInputEnd() override {
    {
      absl::MutexLock lock(&mutex_);
      if (!is_opened_ && !end_) end_ = absl::OkStatus();  // before the first frame
    }
    if (IsEnding()) return Pump();
    asio::post(engine_->strand(), [self = Self()] {
      self->is_half_closed_ = true;
      if (self->is_drained_ && !self->is_cancelled()) self->Leave(/*releases=*/true);
      self->Flush();
    });
  }

  // ---- Opening

  void Open(CheckedFrame first) {
    open_ = *first.open;
    {
      absl::MutexLock lock(&mutex_);
      outbox_.emplace(static_cast<std::size_t>(desk_.limits.response_bytes_max), open_.keeps_leases);
    }
    auto open = [](std::shared_ptr<ConsumeStream> self, CheckedFrame frame) -> Task<void> {
      absl::StatusOr<std::shared_ptr<QueueEngine>> engine = NoSubscription(self->open_.source);
      if (self->open_.source.kind == Name::Kind::kQueue) {
        engine = co_await self->broker_->OpenQueue(self->open_.source);
      }
      if (!engine.ok()) {
        self->End(engine.status());
        co_return;
      }
      self->engine_ = *std::move(engine);
      Spawn(self->engine_->strand(), self->Run(self, std::move(frame)));
    };
    Spawn(desk_.environment.executor(), open(Self(), std::move(first)));
  }

  // The stream's life on the strand: opening, then heartbeats until it ends.
  Task<void> Run(std::shared_ptr<ConsumeStream> self, CheckedFrame first) {
    if (!engine_->is_serving()) {
      LogHandle log(engine_);
      const bool is_elsewhere = co_await RelayIfElsewhere(std::move(log), std::exchange(first_frame_, {}));
      if (is_elsewhere) co_return;
    }
    if (absl::Status status = co_await engine_->WaitUntilServing(kOwnerPatience); !status.ok()) {
      End(status);
      co_return;
    }
    if (IsEnding()) co_return;
    wake_.emplace(desk_.environment, engine_->strand());
    const absl::StatusOr<QueueEngine::ConsumerId> consumer = engine_->AddConsumer(open_, MakeCallbacks());
    if (!consumer.ok()) {
      End(consumer.status());
      co_return;
    }
    consumer_ = *consumer;
    LogDebug("a consumer has come", {{"source", open_.source.Full()}, {"consumer", open_.consumer}});
    SendOpened();
    Act(std::move(first), {});
    ReadMore();
    Instant next_heartbeat = desk_.environment.Now() + open_.heartbeat_interval;
    while (!IsEnding()) {
      const Duration pause = next_heartbeat - desk_.environment.Now();
      if (pause > Duration::zero()) {
        co_await wake_->WaitFor(pause);
        continue;
      }
      next_heartbeat = desk_.environment.Now() + open_.heartbeat_interval;
      co_await Heartbeat();
    }
    Leave(/*releases=*/false);
    (void)self;  // keeps this alive
  }

  QueueEngine::ConsumerCallbacks MakeCallbacks() {
    return {.on_deliveries =
                [self = Self()](std::vector<Delivery> deliveries, Duration lease) {
                  {
                    absl::MutexLock lock(&self->mutex_);
                    if (self->end_) return;
                    self->outbox_->Add(deliveries, lease, self->desk_.environment.Now());
                  }
                  self->Pump();
                },
            .on_end =
                [self = Self()](absl::Status why) {
                  self->consumer_.reset();
                  self->End(std::move(why));
                }};
  }

  void SendOpened() {
    const QueueSettings& settings = std::get<QueueSettings>(engine_->entry().settings);
    v1::ConsumeResponse response;
    response.mutable_opened()->set_replica(desk_.replica);
    SetDuration(open_.lease.value_or(settings.lease_duration), *response.mutable_opened()->mutable_lease_duration());
    {
      absl::MutexLock lock(&mutex_);
      control_.push_front({EncodeMessage(response), {}});
      is_opened_ = true;
    }
    Pump();
  }

  // ---- Acting, on the strand

  void Act(CheckedFrame frame, Cost cost) {
    if (has_failed_) return;
    if (frame.credit && consumer_) {
      // Before anything of the frame is done.
      const absl::StatusOr<CheckedCredit> sum = AddCredit(engine_->CreditOf(*consumer_), *frame.credit);
      if (!sum.ok()) return FailInOrder(sum.status());
    }
    if (frame.Settles()) {
      SettleOrders orders{std::move(frame.ack_tokens), std::move(frame.nacks), std::move(frame.extensions)};
      Spawn(engine_->strand(), Settle(Self(), answers_.Ask(), frame.sequence, std::move(orders), cost));
    } else {
      Answered(cost);
    }
    if (frame.credit && consumer_) {
      if (absl::Status status = engine_->AddCredit(*consumer_, *frame.credit); !status.ok()) FailInOrder(status);
    }
    if (frame.drains && consumer_) {
      is_drained_ = true;
      engine_->StopConsumer(*consumer_);
    }
  }

  Task<void> Settle(std::shared_ptr<ConsumeStream> self, std::uint64_t ticket, std::int64_t sequence,
                    SettleOrders orders, Cost cost) {
    const absl::StatusOr<std::vector<SettleFailure>> failures = co_await engine_->Settle(std::move(orders));
    Answer answer;
    answer.cost = cost;
    if (failures.ok()) {
      answer.bytes = EncodeSettled(sequence, *failures);
    } else {
      answer.bytes = failures.status();
    }
    answers_.Give(ticket, std::move(answer));
    Flush();
    (void)self;  // keeps this alive
  }

  // The stream ends with this when all frames before are answered; nothing more is acted on.
  void FailInOrder(const absl::Status& status) {
    has_failed_ = true;
    Answer answer{status, {}};
    answers_.Give(answers_.Ask(), std::move(answer));
    Flush();
  }

  void Flush() {
    if (IsEnding()) return;
    while (std::optional<Answer> answer = answers_.Next()) {
      if (!answer->bytes.ok()) return End(answer->bytes.status());
      absl::MutexLock lock(&mutex_);
      control_.push_back({*std::move(answer->bytes), answer->cost});
    }
    if (is_half_closed_ && answers_.empty()) return End(absl::OkStatus());
    Pump();
  }

  void Answered(Cost cost) {
    {
      absl::MutexLock lock(&mutex_);
      unanswered_.frames -= cost.frames;
      unanswered_.tokens -= cost.tokens;
    }
    ReadMore();
  }

  Task<void> Heartbeat() {
    if (engine_->is_serving()) {
      const absl::StatusOr<QueueEngine::Stats> stats = co_await engine_->GetStats();
      if (stats.ok()) counts_ = stats->counts;
    }
    const CheckedCredit left = consumer_ ? engine_->CreditOf(*consumer_) : CheckedCredit{};
    v1::ConsumeResponse response;
    v1::Heartbeat& heartbeat = *response.mutable_heartbeat();
    heartbeat.set_ready(counts_.ready);
    heartbeat.set_delayed(counts_.delayed);
    heartbeat.set_leased(counts_.leased);
    heartbeat.mutable_credit_left()->set_messages(static_cast<std::int32_t>(left.messages));
    heartbeat.mutable_credit_left()->set_bytes(std::max<std::int64_t>(left.bytes, 0));
    heartbeat.set_has_owner(engine_->is_serving());
    {
      absl::MutexLock lock(&mutex_);
      // One at a time: a client that reads nothing gets the latest when it reads again.
      heartbeat_ = EncodeMessage(response);
    }
    Pump();
  }

  void Leave(bool releases) {
    {
      absl::MutexLock lock(&mutex_);
      outbox_->Clear();
    }
    if (!consumer_) return;
    engine_->RemoveConsumer(*std::exchange(consumer_, std::nullopt), releases);
  }

  void OnEnding() override {
    {
      absl::MutexLock lock(&mutex_);
      if (!is_opened_) return;  // Run will see it
    }
    asio::post(engine_->strand(), [self = Self()] {
      if (self->wake_) self->wake_->Notify();
    });
  }

  // ---- Frames out

  bool TakeFrame(grpc::Slice& frame) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!is_opened_) return false;
    const Instant now = desk_.environment.Now();
    sending_ = {};
    if (!control_.empty()) {
      frame = std::move(control_.front().bytes);
      sending_ = control_.front().cost;
      control_.pop_front();
    } else if (heartbeat_) {
      frame = *std::exchange(heartbeat_, std::nullopt);
    } else if (!end_ && outbox_->HasFrame(now)) {
      frame = outbox_->TakeFrame(now);
    } else {
      return false;
    }
    return true;
  }

  void OnFrameSent() override {
    Cost sent;
    {
      absl::MutexLock lock(&mutex_);
      sent = std::exchange(sending_, {});
    }
    Answered(sent);
  }

  // Set before is_opened_, and only then used on other threads; constant from there on.
  grpc::ByteBuffer first_frame_;
  CheckedOpen open_;
  std::shared_ptr<QueueEngine> engine_;

  // Touched only on the strand.
  std::optional<QueueEngine::ConsumerId> consumer_;  // while the engine knows this stream
  std::optional<Signal> wake_;
  OrderedAnswers<Answer> answers_;
  Dispatcher::Counts counts_;  // the last known
  bool is_drained_ = false;    // by the client
  bool is_half_closed_ = false;
  bool has_failed_ = false;

  FrameState frames_ ABSL_GUARDED_BY(mutex_);
  std::optional<ConsumeOutbox> outbox_ ABSL_GUARDED_BY(mutex_);
  std::deque<Control> control_ ABSL_GUARDED_BY(mutex_);
  std::optional<grpc::Slice> heartbeat_ ABSL_GUARDED_BY(mutex_);
  Cost unanswered_ ABSL_GUARDED_BY(mutex_);
  Cost sending_ ABSL_GUARDED_BY(mutex_);
  bool is_opened_ ABSL_GUARDED_BY(mutex_) = false;
  bool has_bad_frame_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* MakeConsumeStream(Desk& desk,
                                                                               grpc::CallbackServerContext& context) {
  const auto stream = std::make_shared<ConsumeStream>(desk, context);
  stream->Start();
  return stream.get();
}

}  // namespace postkeeper
