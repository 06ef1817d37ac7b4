#include "service/consume_stream.h"

#include <asio/post.hpp>
#include <deque>
#include <utility>

#include "postkeeper/v1/message.pb.h"
#include "service/broker.h"
#include "service/consume_outbox.h"
#include "service/consume_session.h"
#include "service/field_checks.h"
#include "service/log_handle.h"
#include "service/logging.h"
#include "service/peer_leg.h"
#include "service/relayed_consume.h"
#include "service/stream_call.h"
#include "service/wire_codec.h"

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
// engine, by the session (consume_session.h), which knows nothing of gRPC. Deliveries go from it into the outbox and
// from there to whoever may write. What ends the stream because of a frame (a broken rule, a settlement that failed)
// waits until the frames before it are answered.
//
// However the stream ends, the session is told once (Leave). The client's leases are released only after a drain that
// it has asked for and half-closed behind; else they lapse, and their tokens stay good.
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
    ToSession([](ConsumeSession& session) { session.StopDeliveries(); });
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

  std::shared_ptr<ConsumeStream> Self() { return std::static_pointer_cast<ConsumeStream>(shared_from_this()); }

  // On the strand, if there is a session.
  template <typename Function>
  void ToSession(Function function) {
    std::shared_ptr<ConsumeSession> session;
    {
      absl::MutexLock lock(&mutex_);
      session = session_;
    }
    if (!session) return;  // StartSession will see it
    asio::post(engine_->strand(), [session, function = std::move(function)]() mutable { function(*session); });
  }

  // ---- Frames in, on gRPC's thread

  bool MayRead() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const bool is_opening = frames_.is_open && !is_opened_;
    return !is_opening && !has_bad_frame_ && unanswered_.frames < kUnansweredFramesMax &&
           unanswered_.tokens < kUnansweredTokensMax;
  }

  void OnFrame(const grpc::ByteBuffer& bytes) override {
    const bool is_first = !frames_.is_open;
    absl::StatusOr<CheckedFrame> frame = Check(bytes, is_first);
    if (!frame.ok() && is_first) return End(frame.status());
    if (is_first) return Open(*std::move(frame));
    const Cost cost{1, frame.ok() ? CountTokens(*frame) : 0};
    {
      absl::MutexLock lock(&mutex_);
      unanswered_.frames += cost.frames;
      unanswered_.tokens += cost.tokens;
      if (!frame.ok()) has_bad_frame_ = true;
    }
    ToSession([self = Self(), cost, frame = std::move(frame)](ConsumeSession& session) mutable {
      if (frame.ok()) {
        self->Act(session, *std::move(frame), cost);
      } else {
        session.Fail(frame.status());
      }
    });
  }

  absl::StatusOr<CheckedFrame> Check(const grpc::ByteBuffer& bytes, bool is_first) {
    v1::ConsumeRequest request;
    if (absl::Status status = DecodeRequest(bytes, "ConsumeRequest", request); !status.ok()) return status;
    if (is_first && is_relayed_) {
      absl::StatusOr<std::vector<HeldLease>> held = TakeHeldLeases(request);
      if (!held.ok()) return held.status();
      held_ = *std::move(held);
    }
    absl::MutexLock lock(&mutex_);  // MayRead looks at the state
    return CheckFrame(std::move(request), frames_);
  }

  void OnInputEnd() override {
    {
      absl::MutexLock lock(&mutex_);
      if (!is_opened_ && !end_) end_ = absl::OkStatus();  // before the first frame
    }
    if (IsEnding()) {
      OnEnding();
      return Pump();
    }
    // A stream that breaks off ends its input, too, and gRPC tells of the one and the other in any order.
    if (context_.IsCancelled()) return;
    ToSession([](ConsumeSession& session) { session.FinishInput(); });
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
      asio::post(self->engine_->strand(),
                 [self, frame = std::move(frame)]() mutable { self->StartSession(std::move(frame)); });
    };
    Spawn(desk_.environment.executor(), open(Self(), std::move(first)));
  }

  void StartSession(CheckedFrame first) {
    ConsumeSession::Options options;
    options.open = open_;
    options.held = std::move(held_);
    options.is_relayed = is_relayed_;
    options.make_leg = [&desk = desk_, strand = engine_->strand(), deadline = deadline_](
                           std::string owner, const LegOpening& opening, ConsumeLeg::Listener listener) {
      return MakePeerLeg(desk, strand, std::move(owner), deadline, opening, std::move(listener));
    };
    const auto session =
        std::make_shared<ConsumeSession>(desk_.environment, engine_, std::move(options), ClientOfSession());
    {
      absl::MutexLock lock(&mutex_);
      if (end_) return;
      session_ = session;
    }
    session->Start();
    Act(*session, std::move(first), {});
  }

  // The session does not hold the stream, which holds it.
  ConsumeSession::Client ClientOfSession() {
    const std::weak_ptr<ConsumeStream> weak = Self();
    ConsumeSession::Client client;
    client.on_opened = [weak](Duration lease) {
      if (const auto self = weak.lock()) self->SendOpened(lease);
    };
    client.on_deliveries = [weak](const LegDeliveries& deliveries) {
      if (const auto self = weak.lock()) self->SendDeliveries(deliveries);
    };
    client.on_settled = [weak](std::int64_t sequence, const std::vector<SettleFailure>& failures) {
      if (const auto self = weak.lock()) self->SendSettled(sequence, failures);
    };
    client.on_heartbeat = [weak](const ConsumeSession::Heartbeat& heartbeat) {
      if (const auto self = weak.lock()) self->SendHeartbeat(heartbeat);
    };
    client.on_end = [weak](absl::Status status) {
      if (const auto self = weak.lock()) self->End(std::move(status));
    };
    return client;
  }

  // ---- On the strand

  void Act(ConsumeSession& session, CheckedFrame frame, Cost cost) {
    if (frame.Settles()) {
      costs_.push_back(cost);
    } else {
      Answered(cost);
    }
    session.Take(std::move(frame));
  }

  void SendOpened(Duration lease) {
    LogDebug("a consumer has come", {{"source", open_.source.Full()}, {"consumer", open_.consumer}});
    v1::ConsumeResponse response;
    response.mutable_opened()->set_replica(desk_.replica);
    SetDuration(lease, *response.mutable_opened()->mutable_lease_duration());
    {
      absl::MutexLock lock(&mutex_);
      control_.push_front({EncodeMessage(response), {}});
      is_opened_ = true;
    }
    Pump();
    ReadMore();
  }

  void SendDeliveries(const LegDeliveries& deliveries) {
    const Instant now = desk_.environment.Now();
    {
      absl::MutexLock lock(&mutex_);
      if (end_) return;
      if (deliveries.encoded) {
        outbox_->Add(deliveries.encoded, deliveries.lease, now);
      } else {
        outbox_->Add(deliveries.deliveries, deliveries.lease, now);
      }
    }
    Pump();
  }

  void SendSettled(std::int64_t sequence, const std::vector<SettleFailure>& failures) {
    const Cost cost = costs_.front();
    costs_.pop_front();
    {
      absl::MutexLock lock(&mutex_);
      control_.push_back({EncodeSettled(sequence, failures), cost});
    }
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

  void SendHeartbeat(const ConsumeSession::Heartbeat& of_session) {
    v1::ConsumeResponse response;
    v1::Heartbeat& heartbeat = *response.mutable_heartbeat();
    heartbeat.set_ready(of_session.counts.ready);
    heartbeat.set_delayed(of_session.counts.delayed);
    heartbeat.set_leased(of_session.counts.leased);
    heartbeat.mutable_credit_left()->set_messages(static_cast<std::int32_t>(of_session.credit_left.messages));
    heartbeat.mutable_credit_left()->set_bytes(std::max<std::int64_t>(of_session.credit_left.bytes, 0));
    heartbeat.set_has_owner(of_session.has_owner);
    {
      absl::MutexLock lock(&mutex_);
      // One at a time: a client that reads nothing gets the latest when it reads again.
      heartbeat_ = EncodeMessage(response);
    }
    Pump();
  }

  void OnEnding() override {
    {
      absl::MutexLock lock(&mutex_);
      if (outbox_) outbox_->Clear();
    }
    ToSession([](ConsumeSession& session) { session.Leave(); });
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

  // Set before session_, and only then used on other threads; constant from there on.
  CheckedOpen open_;
  std::vector<HeldLease> held_;  // what another replica has announced
  std::shared_ptr<QueueEngine> engine_;

  std::deque<Cost> costs_;  // of the frames that settle, until they are answered; touched only on the strand

  std::shared_ptr<ConsumeSession> session_ ABSL_GUARDED_BY(mutex_);
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
