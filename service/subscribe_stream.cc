#include "service/subscribe_stream.h"

#include <algorithm>
#include <asio/post.hpp>
#include <utility>

#include "postkeeper/v1/message.pb.h"
#include "service/broker.h"
#include "service/logging.h"
#include "service/stream_call.h"
#include "service/wire_codec.h"
#include "zkstore/signal.h"

namespace postkeeper {
namespace {

// Batches that are there share a response until it is so large.
constexpr std::size_t kResponseBytesAimed = 256 << 10;
// How soon a reader that waits for messages finds out that its stream is gone.
constexpr Duration kReadSliceMax = std::chrono::seconds(5);

using Base = StreamCall<grpc::ServerWriteReactor<grpc::ByteBuffer>>;

// How it works. One task on the strand of the topic's engine reads and encodes; while one response is being written the
// next one is prepared, and no more. So a client that reads slowly slows its own reading down, and nothing else.
class SubscribeStream final : public Base {
 public:
  SubscribeStream(Desk& desk, grpc::CallbackServerContext& context)
      : Base(desk, kMessageServiceName, "Subscribe", context) {}

  void Start(const grpc::ByteBuffer& bytes) {
    Hold();
    metrics_.MessageReceived();
    absl::StatusOr<CheckedSubscribe> subscribe = Check(bytes);
    if (!subscribe.ok()) return End(subscribe.status());
    if (!Enter()) return;
    subscribe_ = *std::move(subscribe);
    request_ = bytes;
    Spawn(desk_.environment.executor(), Open(Self()));
  }

  // There is no frame that says so: the client resumes elsewhere, behind what it has got.
  void AskToLeave(std::string_view, Duration) override { End(ReplicaDraining()); }

 private:
  std::shared_ptr<SubscribeStream> Self() { return std::static_pointer_cast<SubscribeStream>(shared_from_this()); }

  static absl::StatusOr<CheckedSubscribe> Check(const grpc::ByteBuffer& bytes) {
    v1::SubscribeRequest request;
    if (absl::Status status = DecodeRequest(bytes, "SubscribeRequest", request); !status.ok()) return status;
    return CheckSubscribe(std::move(request));
  }

  Task<void> Open(std::shared_ptr<SubscribeStream> self) {
    absl::StatusOr<std::shared_ptr<TopicEngine>> topic = co_await broker_->OpenTopic(subscribe_.topic);
    if (!topic.ok()) {
      End(topic.status());
      co_return;
    }
    {
      absl::MutexLock lock(&mutex_);
      topic_ = *std::move(topic);
    }
    Spawn(topic_->strand(), Run(std::move(self)));
  }

  Task<void> Run(std::shared_ptr<SubscribeStream> self) {
    if (!topic_->is_serving()) {
      LogHandle log(topic_);
      const bool is_elsewhere = co_await RelayIfElsewhere(std::move(log), std::exchange(request_, {}));
      if (const std::shared_ptr<StreamRelay> relay = FindRelay()) relay->HalfClose();
      if (is_elsewhere) co_return;
    }
    if (absl::Status status = topic_->AddSubscriber(); !status.ok()) {
      End(status);
      co_return;
    }
    LogDebug("a subscriber has come", {{"topic", topic_->full_name()}, {"subscriber", subscribe_.subscriber}});
    room_.emplace(desk_.environment, topic_->strand());
    const absl::Status end = co_await Serve();
    SetBehind(false);
    topic_->RemoveSubscriber();
    End(end);
    (void)self;  // keeps this alive
  }

  // Returns why the stream ends. OK: it has ended already.
  Task<absl::Status> Serve() {
    CheckedStart start = subscribe_.start;
    absl::StatusOr<TopicEngine::Step> step = co_await topic_->BeginAt(std::move(start));
    if (!step.ok()) co_return step.status();
    TopicMessageEncoder encoder(topic_->uid(), topic_->full_name());
    Put(encoder.Take(step->position, step->tail));
    Instant sent_at = desk_.environment.Now();
    while (!IsEnding()) {
      if (!HasRoom()) {
        SetBehind(true);
        co_await room_->Wait();
        continue;
      }
      const Duration until_heartbeat = sent_at + subscribe_.heartbeat_interval - desk_.environment.Now();
      const Duration wait = std::clamp<Duration>(until_heartbeat, Duration::zero(), kReadSliceMax);
      const Position read_so_far = step->position;
      step = co_await topic_->ReadAfter(read_so_far, wait);
      if (!step.ok()) co_return step.status();
      SetBehind(step->position != step->tail);
      if (!step->batch && step->position == read_so_far &&
          desk_.environment.Now() < sent_at + subscribe_.heartbeat_interval) {
        continue;
      }
      co_await Collect(encoder, *step);
      const int messages = encoder.count();
      Put(encoder.Take(step->position, step->tail));
      if (messages > 0) topic_->CountDelivered(messages, step->batch->append_time());
      sent_at = desk_.environment.Now();
    }
    co_return absl::OkStatus();
  }

  void SetBehind(bool is_behind) {
    if (std::exchange(is_behind_, is_behind) != is_behind) topic_->CountBehind(is_behind ? 1 : -1);
  }

  // Encodes the batch of `step` and what is there behind it; moves `step` on.
  Task<void> Collect(TopicMessageEncoder& encoder, TopicEngine::Step& step) {
    if (!step.batch) co_return;
    encoder.Add(*step.batch, step.batch_position, step.first_index);
    while (encoder.bytes() < kResponseBytesAimed) {
      const Position read_so_far = step.position;
      absl::StatusOr<TopicEngine::Step> next = co_await topic_->ReadAfter(read_so_far, Duration::zero());
      // What is wrong will be so at the next reading, too; what was read goes out first.
      if (!next.ok() || !next->batch) break;
      const std::size_t bytes_then = encoder.bytes() + encoder.BytesOf(*next->batch);
      if (bytes_then > static_cast<std::size_t>(desk_.limits.response_bytes_max)) break;
      encoder.Add(*next->batch, next->batch_position, next->first_index);
      step = *std::move(next);
    }
  }

  void Put(grpc::Slice response) {
    {
      absl::MutexLock lock(&mutex_);
      next_ = std::move(response);
    }
    Pump();
  }

  bool HasRoom() {
    absl::MutexLock lock(&mutex_);
    return !next_.has_value();
  }

  bool TakeFrame(grpc::Slice& frame) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!next_) return false;
    frame = *std::exchange(next_, std::nullopt);
    return true;
  }

  void OnFrameSent() override { WakeUp(); }
  void OnEnding() override { WakeUp(); }

  void WakeUp() {
    {
      absl::MutexLock lock(&mutex_);
      if (!topic_) return;  // Run will see it
    }
    asio::post(topic_->strand(), [self = Self()] {
      if (self->room_) self->room_->Notify();
    });
  }

  grpc::ByteBuffer request_;
  CheckedSubscribe subscribe_;          // constant after Start
  std::shared_ptr<TopicEngine> topic_;  // set once, under the mutex, before the strand is used
  std::optional<Signal> room_;          // touched only on the strand
  bool is_behind_ = false;              // likewise
  std::optional<grpc::Slice> next_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

grpc::ServerWriteReactor<grpc::ByteBuffer>* MakeSubscribeStream(Desk& desk, grpc::CallbackServerContext& context,
                                                                const grpc::ByteBuffer& request) {
  const auto stream = std::make_shared<SubscribeStream>(desk, context);
  stream->Start(request);
  return stream.get();
}

}  // namespace postkeeper
