#include "bench/delivery_load.h"

#include <condition_variable>
#include <deque>
#include <thread>
#include <utility>
#include <vector>

#include "bench/service_client.h"
#include "postkeeper/v1/message.grpc.pb.h"
#include "zkstore/text.h"

namespace postkeeper::bench {
namespace {

constexpr auto kStreamTimeout = std::chrono::minutes(10);
constexpr auto kStatusPoll = std::chrono::milliseconds(100);

// The producers, told to pause while the other end is behind. Their failures become this load's.
class DeliveryLoad : public Load {
 protected:
  explicit DeliveryLoad(const DeliveryShape& shape) : shape_(shape) {}

  IsBehind BehindBacklog() {
    return [this](std::int64_t appended) {
      // A producer that has failed shows here and ends both sides.
      return appended - done() >= shape_.backlog_max || has_failed();
    };
  }

  absl::Status StartProducers(std::unique_ptr<Load> producers) {
    producers_ = std::move(producers);
    if (absl::Status status = producers_->Start(); !status.ok()) return status;
    watch_ = std::thread([this] {
      while (!is_stopping_) {
        if (absl::Status status = producers_->status(); !status.ok()) Fail(std::move(status));
        std::this_thread::sleep_for(kStatusPoll);
      }
    });
    return absl::OkStatus();
  }

  void StopProducers() {
    is_stopping_ = true;
    if (watch_.joinable()) watch_.join();
    if (producers_) producers_->Stop();
  }

  const DeliveryShape shape_;
  std::atomic<bool> is_stopping_ = false;

 private:
  std::unique_ptr<Load> producers_;
  std::thread watch_;
};

using ConsumeCall = grpc::ClientReaderWriter<v1::ConsumeRequest, v1::ConsumeResponse>;

// One Consume stream: a thread that reads, and one that writes what the reader has to ack. Two, since a client that
// does not read while it writes, and a server that does the same, would wait for each other.
class Consumer {
 public:
  struct Listener {
    std::function<void(std::int64_t)> on_settled;
    std::function<void(absl::Status)> on_failed;
  };

  Consumer(const std::string& address, const std::string& queue, const DeliveryShape& shape, Listener listener)
      : listener_(std::move(listener)), stub_(MakeChannel(address)) {
    SetDeadline(context_, kStreamTimeout);
    open_.mutable_open()->set_source(queue);
    open_.mutable_open()->mutable_credit()->set_messages(shape.credit_messages);
    open_.mutable_open()->mutable_credit()->set_bytes(std::int64_t{64} << 20);
    open_.mutable_open()->set_consumer("bench");
    call_ = stub_.Consume(&context_);
    reader_ = std::thread([this] { Read(); });
    writer_ = std::thread([this] { Write(); });
  }

  // Drains: what is held is settled, then the stream ends.
  ~Consumer() {
    {
      std::unique_lock lock(mutex_);
      is_stopping_ = true;
      changed_.notify_all();
      if (!changed_.wait_for(lock, kCallTimeout, [this] { return is_over_; })) context_.TryCancel();
    }
    writer_.join();
    reader_.join();
    if (grpc::Status status = call_->Finish(); !status.ok()) {
      listener_.on_failed(ToStatus(status, "the Consume stream ended"));
    }
  }

 private:
  void Read() {
    v1::ConsumeResponse response;
    while (call_->Read(&response)) {
      if (response.has_deliveries()) TakeDeliveries(*response.mutable_deliveries());
      if (response.has_settled()) TakeSettled(response.settled());
    }
    const std::lock_guard lock(mutex_);
    is_over_ = true;
    changed_.notify_all();
  }

  void TakeDeliveries(v1::Deliveries& deliveries) {
    v1::ConsumeRequest ack;
    ack.mutable_ack_tokens()->Reserve(deliveries.deliveries_size());
    for (v1::Delivery& delivery : *deliveries.mutable_deliveries()) {
      if (delivery.attempt() != 1) {
        listener_.on_failed(absl::InternalError(Cat("message ", delivery.message_id(), " came again")));
      }
      ack.add_ack_tokens(std::move(*delivery.mutable_lease_token()));
    }
    const std::lock_guard lock(mutex_);
    acks_.push_back(std::move(ack));
    changed_.notify_all();
  }

  void TakeSettled(const v1::Settled& settled) {
    std::int64_t tokens = 0;
    {
      const std::lock_guard lock(mutex_);
      if (unsettled_.empty() || unsettled_.front().sequence != settled.sequence()) {
        listener_.on_failed(absl::InternalError("an ack was answered that was not sent, or out of order"));
        return;
      }
      tokens = unsettled_.front().tokens;
      unsettled_.pop_front();
      changed_.notify_all();
    }
    if (settled.failures_size() > 0) {
      listener_.on_failed(
          absl::InternalError(Cat(settled.failures_size(), " acks failed; the first: ", settled.failures(0).detail())));
    }
    listener_.on_settled(tokens - settled.failures_size());
  }

  void Write() {
    bool is_written = call_->Write(open_);
    bool has_drained = false;
    std::unique_lock lock(mutex_);
    while (is_written && !is_over_) {
      if (!acks_.empty()) {
        v1::ConsumeRequest ack = std::move(acks_.front());
        acks_.pop_front();
        ack.set_sequence(++last_sequence_);
        unsettled_.push_back({last_sequence_, ack.ack_tokens_size()});
        lock.unlock();
        is_written = call_->Write(ack);
        lock.lock();
      } else if (is_stopping_ && !has_drained) {
        has_drained = true;
        v1::ConsumeRequest drain;
        drain.set_drain(true);
        lock.unlock();
        is_written = call_->Write(drain);
        lock.lock();
      } else if (has_drained && unsettled_.empty()) {
        break;
      } else {
        changed_.wait(lock);
      }
    }
    lock.unlock();
    call_->WritesDone();
  }

  struct Sent {
    std::int64_t sequence;
    std::int64_t tokens;
  };

  const Listener listener_;
  v1::MessageService::Stub stub_;
  grpc::ClientContext context_;
  v1::ConsumeRequest open_;
  std::unique_ptr<ConsumeCall> call_;

  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_. The credit bounds both.
  std::deque<v1::ConsumeRequest> acks_;
  std::deque<Sent> unsettled_;
  std::int64_t last_sequence_ = 0;
  bool is_stopping_ = false;
  bool is_over_ = false;

  std::thread reader_;
  std::thread writer_;
};

class ConsumeLoad final : public DeliveryLoad {
 public:
  ConsumeLoad(std::string address, std::string queue, const DeliveryShape& shape)
      : DeliveryLoad(shape), address_(std::move(address)), queue_(std::move(queue)) {}
  ~ConsumeLoad() override { Stop(); }

  absl::Status Start() override {
    for (int i = 0; i < shape_.consumers; ++i) {
      consumers_.push_back(std::make_unique<Consumer>(
          address_, queue_, shape_,
          Consumer::Listener{.on_settled = [this](std::int64_t messages) { CountDone(messages); },
                             .on_failed = [this](absl::Status why) { Fail(std::move(why)); }}));
    }
    return StartProducers(MakeEnqueueLoad(address_, queue_, shape_.append, BehindBacklog()));
  }

  void Stop() override {
    StopProducers();
    consumers_.clear();
  }

 private:
  const std::string address_;
  const std::string queue_;
  std::vector<std::unique_ptr<Consumer>> consumers_;
};

class SubscribeLoad final : public DeliveryLoad {
 public:
  SubscribeLoad(std::string address, std::string topic, const DeliveryShape& shape)
      : DeliveryLoad(shape), address_(std::move(address)), topic_(std::move(topic)), stub_(MakeChannel(address_)) {}
  ~SubscribeLoad() override { Stop(); }

  absl::Status Start() override {
    SetDeadline(context_, kStreamTimeout);
    v1::SubscribeRequest request;
    request.set_topic(topic_);
    request.mutable_start()->set_earliest(true);
    request.set_subscriber("bench");
    call_ = stub_.Subscribe(&context_, request);
    reader_ = std::thread([this] { Read(); });
    return StartProducers(MakePublishLoad(address_, topic_, shape_.append, BehindBacklog()));
  }

  void Stop() override {
    StopProducers();
    if (!reader_.joinable()) return;
    context_.TryCancel();  // a subscription has no other end
    reader_.join();
    const grpc::Status status = call_->Finish();
    if (!status.ok() && status.error_code() != grpc::StatusCode::CANCELLED) {
      Fail(ToStatus(status, "the Subscribe stream ended"));
    }
  }

 private:
  void Read() {
    v1::SubscribeResponse response;
    while (call_->Read(&response)) CountDone(response.messages_size());
    if (!is_stopping_) Fail(absl::UnavailableError("the Subscribe stream ended"));
  }

  const std::string address_;
  const std::string topic_;
  v1::MessageService::Stub stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::SubscribeResponse>> call_;
  std::thread reader_;
};

}  // namespace

std::unique_ptr<Load> MakeConsumeLoad(const std::string& address, const std::string& queue,
                                      const DeliveryShape& shape) {
  return std::make_unique<ConsumeLoad>(address, queue, shape);
}

std::unique_ptr<Load> MakeSubscribeLoad(const std::string& address, const std::string& topic,
                                        const DeliveryShape& shape) {
  return std::make_unique<SubscribeLoad>(address, topic, shape);
}

}  // namespace postkeeper::bench
