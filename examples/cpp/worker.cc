// Works on the messages of a queue until SIGTERM or Ctrl-C: worker QUEUE
//
// Shows a Consume stream: credit bounds what is held at a time, the server keeps the leases while the stream lives,
// acks travel on the stream. A broken stream is opened again and what had no answer is settled again. At SIGTERM the
// worker takes no more, finishes the message in hand, settles it and exits with 0; what it held besides is given back
// uncounted. Killed with -9, its messages go to other workers when their leases lapse.
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>

#include "connection.h"
#include "postkeeper/v1/message.grpc.pb.h"

namespace {

using postkeeper::v1::ConsumeRequest;
using postkeeper::v1::ConsumeResponse;
using postkeeper::v1::Deliveries;
using postkeeper::v1::Delivery;
using postkeeper::v1::MessageService;
using postkeeper::v1::Settled;

constexpr int kHeldMessages = 10;
constexpr std::chrono::seconds kReopenAfter{1};
constexpr std::chrono::seconds kDrainTimeout{20};  // below the 30 s after which Kubernetes kills

// The work. Throw, and the message is tried again later.
void Handle(const Delivery& delivery) {
  if (delivery.message().body().empty()) throw std::runtime_error("an empty message");
  std::cout << "attempt " << delivery.attempt() << ": " << delivery.message().body() << std::endl;
}

class Worker {
 public:
  explicit Worker(std::string source) : source_(std::move(source)) {}

  // Until Stop. The program's exit code.
  int Run() {
    const auto channel = Connect("worker");
    if (channel == nullptr) return 1;
    const auto stub = MessageService::NewStub(channel);
    while (true) {
      grpc::ClientContext context;  // no deadline: it lives as long as the worker. Pings notice a dead server.
      const grpc::Status status = Consume(*stub, context);
      if (!status.ok()) {
        if (!IsWorthRepeating(status, context)) {
          std::cerr << "worker: " << Explain(status) << "\n";
          return 1;
        }
        std::cerr << "worker: opening a new stream; " << Explain(status) << "\n";
      }
      if (IsDone()) return 0;
      std::this_thread::sleep_for(kReopenAfter);
    }
  }

  // From another thread.
  void Stop() {
    std::lock_guard lock(mutex_);
    is_stopping_ = true;
    Drain();
  }

 private:
  using Stream = grpc::ClientReaderWriter<ConsumeRequest, ConsumeResponse>;

  // One stream: who we are, what the last stream left unanswered, then what comes.
  grpc::Status Consume(MessageService::Stub& stub, grpc::ClientContext& context) {
    const std::unique_ptr<Stream> stream = stub.Consume(&context);
    Begin(*stream);
    ConsumeResponse response;
    while (stream->Read(&response)) {
      if (response.has_deliveries()) WorkOn(response.deliveries());
      if (response.has_settled()) NoteSettled(response.settled());
      if (response.has_draining()) {  // the server goes away, or wants the stream to move; a new stream goes on
        std::lock_guard lock(mutex_);
        Drain();
      }
    }
    std::lock_guard lock(mutex_);
    stream_ = nullptr;
    return stream->Finish();
  }

  void Begin(Stream& stream) {
    ConsumeRequest first;
    first.mutable_open()->set_source(source_);
    first.mutable_open()->set_consumer("cpp-worker");
    first.mutable_open()->set_keep_leases(true);
    first.mutable_open()->mutable_credit()->set_messages(kHeldMessages);
    std::lock_guard lock(mutex_);
    stream_ = &stream;
    is_half_closed_ = false;
    Send(first);
    for (const auto& [sequence, frame] : unanswered_) Send(frame);
    if (is_stopping_) Drain();
  }

  void WorkOn(const Deliveries& deliveries) {
    SetBusy(true);
    for (const Delivery& delivery : deliveries.deliveries()) {
      if (IsStopping()) break;
      ConsumeRequest frame;
      try {
        Handle(delivery);
        frame.add_ack_tokens(delivery.lease_token());
      } catch (const std::exception& error) {  // whatever it is, the message must not be lost
        frame.add_nacks()->add_lease_tokens(delivery.lease_token());
        frame.mutable_nacks(0)->set_reason(std::string(error.what()).substr(0, 250));
      }
      Settle(std::move(frame));
    }
    SetBusy(false);
  }

  void Settle(ConsumeRequest frame) {
    std::lock_guard lock(mutex_);
    frame.set_sequence(++sequence_);
    Send(unanswered_[sequence_] = std::move(frame));
  }

  void NoteSettled(const Settled& settled) {
    std::lock_guard lock(mutex_);
    unanswered_.erase(settled.sequence());
    for (const auto& failure : settled.failures()) {
      if (failure.error() == postkeeper::v1::SETTLE_ERROR_ALREADY_SETTLED) continue;
      std::cerr << "worker: not settled, may be done twice: " << SettleError_Name(failure.error()) << "\n";
    }
  }

  bool IsStopping() {
    std::lock_guard lock(mutex_);
    return is_stopping_;
  }

  bool IsDone() {
    std::lock_guard lock(mutex_);
    return is_stopping_ && unanswered_.empty();
  }

  void SetBusy(bool is_busy) {
    std::lock_guard lock(mutex_);
    is_busy_ = is_busy;
    if (is_stopping_ && !is_busy_) HalfClose();
  }

  // The rest with mutex_ held: one frame is written at a time, while the stream is being read.

  void Drain() {
    ConsumeRequest drain;
    drain.set_drain(true);
    Send(drain);
    if (!is_busy_) HalfClose();
  }

  void Send(const ConsumeRequest& frame) {
    if (stream_ != nullptr && !is_half_closed_) stream_->Write(frame);  // if it fails, the next Read does, too
  }

  void HalfClose() {
    if (stream_ != nullptr && !is_half_closed_) stream_->WritesDone();
    is_half_closed_ = true;
  }

  const std::string source_;
  std::mutex mutex_;
  // Guarded by mutex_.
  Stream* stream_ = nullptr;                           // the open one
  std::map<std::int64_t, ConsumeRequest> unanswered_;  // by sequence: settling frames without a Settled
  std::int64_t sequence_ = 0;
  bool is_half_closed_ = false;
  bool is_busy_ = false;
  bool is_stopping_ = false;
};

// Waits for SIGTERM or Ctrl-C, which all threads have blocked. A second one ends the program at once.
void StopAtSignal(Worker& worker, const sigset_t& signals) {
  int received = 0;
  sigwait(&signals, &received);
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  worker.Stop();
  std::this_thread::sleep_for(kDrainTimeout);
  std::cerr << "worker: not drained within " << kDrainTimeout.count() << " s; what it held comes again\n";
  _exit(1);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: worker QUEUE\n";
    return 2;
  }
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // before any other thread is there
  static Worker worker(argv[1]);
  std::thread([&signals] { StopAtSignal(worker, signals); }).detach();
  const int code = worker.Run();
  std::cout.flush();
  _exit(code);  // the detached thread may still wait
}
