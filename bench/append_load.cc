#include "bench/append_load.h"

#include <condition_variable>
#include <thread>
#include <utility>
#include <vector>

#include "bench/service_client.h"
#include "postkeeper/v1/message.grpc.pb.h"
#include "zkstore/text.h"

namespace postkeeper::bench {
namespace {

// How often a stream that pauses looks whether it may go on.
constexpr auto kBehindPoll = std::chrono::milliseconds(1);
// Longer than any measurement; so a stream that hangs ends after all.
constexpr auto kStreamTimeout = std::chrono::minutes(10);

struct EnqueueCalls {
  using Request = v1::EnqueueStreamRequest;
  using Response = v1::EnqueueStreamResponse;
  static auto Open(v1::MessageService::Stub& stub, grpc::ClientContext* context) { return stub.EnqueueStream(context); }
  static void SetLog(Request& request, const std::string& name) { request.set_queue(name); }
};

struct PublishCalls {
  using Request = v1::PublishStreamRequest;
  using Response = v1::PublishStreamResponse;
  static auto Open(v1::MessageService::Stub& stub, grpc::ClientContext* context) { return stub.PublishStream(context); }
  static void SetLog(Request& request, const std::string& name) { request.set_topic(name); }
};

// Each stream has a thread that writes frames, while fewer than the maximum are unanswered, and one that reads answers.
template <typename Calls>
class AppendLoad final : public Load {
 public:
  AppendLoad(std::string address, std::string log, const AppendShape& shape, IsBehind is_behind)
      : address_(std::move(address)), shape_(shape), is_behind_(std::move(is_behind)) {
    Calls::SetLog(request_, log);
    for (int i = 0; i < shape.frame_messages; ++i) request_.add_messages()->set_body(MakeBody(shape.body_bytes));
  }
  ~AppendLoad() override { Stop(); }

  absl::Status Start() override {
    for (int i = 0; i < shape_.streams; ++i) threads_.emplace_back([this] { RunStream(); });
    return absl::OkStatus();
  }

  void Stop() override {
    is_stopping_ = true;
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

 private:
  struct Stream {
    std::mutex mutex;
    std::condition_variable changed;
    int unanswered = 0;    // guarded by mutex
    bool is_over = false;  // guarded by mutex: no more answers will come
  };

  void RunStream() {
    v1::MessageService::Stub stub(MakeChannel(address_));
    grpc::ClientContext context;
    SetDeadline(context, kStreamTimeout);
    const auto call = Calls::Open(stub, &context);
    Stream stream;
    std::thread reader([&] { ReadAnswers(*call, stream); });
    while (MayWrite(stream) && call->Write(request_)) {
    }
    call->WritesDone();
    // What is on its way is answered soon, or never.
    std::unique_lock lock(stream.mutex);
    if (!stream.changed.wait_for(lock, kCallTimeout, [&] { return stream.is_over; })) context.TryCancel();
    lock.unlock();
    reader.join();
    if (grpc::Status status = call->Finish(); !status.ok()) Fail(ToStatus(status, "the stream ended"));
  }

  // Waits until the next frame may be written; false if none shall.
  bool MayWrite(Stream& stream) {
    while (is_behind_ && is_behind_(done()) && !is_stopping_ && !has_failed()) {
      std::this_thread::sleep_for(kBehindPoll);
    }
    std::unique_lock lock(stream.mutex);
    stream.changed.wait(lock, [&] { return stream.is_over || stream.unanswered < shape_.unanswered_frames_max; });
    if (stream.is_over || is_stopping_ || has_failed()) return false;
    ++stream.unanswered;
    return true;
  }

  template <typename Call>
  void ReadAnswers(Call& call, Stream& stream) {
    typename Calls::Response response;
    while (call.Read(&response)) {
      if (response.message_ids_size() != shape_.frame_messages) {
        Fail(absl::InternalError(Cat("a frame of ", shape_.frame_messages, " messages was answered with ",
                                     response.message_ids_size(), " ids")));
      }
      CountDone(response.message_ids_size());
      const std::lock_guard lock(stream.mutex);
      --stream.unanswered;
      stream.changed.notify_one();
    }
    const std::lock_guard lock(stream.mutex);
    stream.is_over = true;
    stream.changed.notify_one();
  }

  const std::string address_;
  const AppendShape shape_;
  const IsBehind is_behind_;
  typename Calls::Request request_;
  std::atomic<bool> is_stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace

std::unique_ptr<Load> MakeEnqueueLoad(const std::string& address, const std::string& queue, const AppendShape& shape,
                                      IsBehind is_behind) {
  return std::make_unique<AppendLoad<EnqueueCalls>>(address, queue, shape, std::move(is_behind));
}

std::unique_ptr<Load> MakePublishLoad(const std::string& address, const std::string& topic, const AppendShape& shape,
                                      IsBehind is_behind) {
  return std::make_unique<AppendLoad<PublishCalls>>(address, topic, shape, std::move(is_behind));
}

}  // namespace postkeeper::bench
