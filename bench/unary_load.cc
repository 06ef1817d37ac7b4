#include "bench/unary_load.h"

#include <grpcpp/completion_queue.h>
#include <grpcpp/generic/generic_stub.h>

#include <thread>
#include <utility>

#include "bench/service_client.h"
#include "postkeeper/v1/message.pb.h"
#include "zkstore/text.h"

namespace postkeeper::bench {
namespace {

constexpr char kMethod[] = "/postkeeper.v1.MessageService/Enqueue";

class UnaryLoad final : public Load {
 public:
  UnaryLoad(const std::string& address, const std::string& queue, int in_flight, int body_bytes)
      : in_flight_(in_flight), stub_(MakeChannel(address)) {
    v1::EnqueueRequest request;
    request.set_queue(queue);
    request.add_messages()->set_body(MakeBody(body_bytes));
    const grpc::Slice bytes(request.SerializeAsString());
    request_ = grpc::ByteBuffer(&bytes, 1);
  }
  ~UnaryLoad() override { Stop(); }

  absl::Status Start() override {
    for (int i = 0; i < in_flight_; ++i) SendNext();
    thread_ = std::thread([this] { Run(); });
    return absl::OkStatus();
  }

  void Stop() override {
    is_stopping_ = true;
    if (thread_.joinable()) thread_.join();
  }

 private:
  struct Call {
    grpc::ClientContext context;
    grpc::ByteBuffer response;
    grpc::Status status;
    Clock::time_point sent_at;
    std::unique_ptr<grpc::GenericClientAsyncResponseReader> reader;
  };

  void SendNext() {
    auto call = std::make_unique<Call>();
    SetDeadline(call->context, kCallTimeout);
    call->sent_at = Clock::now();
    call->reader = stub_.PrepareUnaryCall(&call->context, kMethod, request_, &answers_);
    call->reader->StartCall();
    call->reader->Finish(&call->response, &call->status, call.get());
    call.release();  // until the queue gives it back
    ++open_;
  }

  void Run() {
    void* tag = nullptr;
    bool is_ok = false;
    while (open_ > 0 && answers_.Next(&tag, &is_ok)) {
      const std::unique_ptr<Call> call(static_cast<Call*>(tag));
      --open_;
      if (!call->status.ok()) {
        Fail(ToStatus(call->status, "Enqueue"));
      } else if (call->response.Length() == 0) {
        Fail(absl::InternalError("Enqueue: the answer has no message id"));
      } else {
        RecordLatency(Clock::now() - call->sent_at);
        CountDone(1);
      }
      if (!is_stopping_ && !has_failed()) SendNext();
    }
    answers_.Shutdown();
    while (answers_.Next(&tag, &is_ok)) {
    }
  }

  const int in_flight_;
  grpc::GenericStub stub_;
  grpc::ByteBuffer request_;
  grpc::CompletionQueue answers_;
  std::atomic<bool> is_stopping_ = false;
  int open_ = 0;  // touched by Start before the thread is there, then by the thread
  std::thread thread_;
};

}  // namespace

std::unique_ptr<Load> MakeUnaryLoad(const std::string& address, const std::string& queue, int in_flight,
                                    int body_bytes) {
  return std::make_unique<UnaryLoad>(address, queue, in_flight, body_bytes);
}

}  // namespace postkeeper::bench
