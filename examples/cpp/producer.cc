// Puts each line of standard input into a queue: producer QUEUE [NAME]
//
// Lines travel in batches. Each batch has a request_id, so a batch whose answer got lost is sent again without being
// written twice. NAME names this input: if the program is killed and run again within ten minutes with the same input
// and the same NAME, what was already in is not written again.
#include <chrono>
#include <iostream>
#include <random>
#include <string>
#include <thread>

#include "connection.h"
#include "postkeeper/v1/message.grpc.pb.h"

namespace {

using postkeeper::v1::EnqueueRequest;
using postkeeper::v1::EnqueueResponse;
using postkeeper::v1::Message;
using postkeeper::v1::MessageService;
using std::chrono::steady_clock;
using std::chrono::system_clock;

constexpr int kBatchLines = 500;
constexpr std::size_t kBatchBytes = 256 * 1024;
constexpr std::chrono::seconds kDeadline{30};
constexpr std::chrono::seconds kPause{1};
// With a server that is gone or full; less than the ten minutes for which it knows a request_id.
constexpr std::chrono::seconds kPatience{300};

std::string RandomName() {
  std::random_device random;
  return std::to_string(random()) + "-" + std::to_string(random()) + "-" + std::to_string(random());
}

// Fills `request` with the next lines. False at the end of the input. The same lines make the same batches, which is
// what lets NAME work.
bool NextBatch(std::string& next_line, EnqueueRequest& request) {
  request.clear_messages();
  std::size_t size = 0;
  while (std::cin) {
    if (!next_line.empty() && next_line.back() == '\r') next_line.pop_back();
    const bool is_full = request.messages_size() == kBatchLines || size + next_line.size() > kBatchBytes;
    if (request.messages_size() > 0 && is_full) return true;
    size += next_line.size();
    Message& message = *request.add_messages();
    message.set_body(next_line);
    message.set_content_type("text/plain");
    std::getline(std::cin, next_line);
  }
  return request.messages_size() > 0;
}

// Sends the very same request until it is in. gRPC repeats a lost call by itself; this is for longer troubles.
grpc::Status Enqueue(MessageService::Stub& stub, const EnqueueRequest& request, EnqueueResponse& response) {
  const auto give_up_at = steady_clock::now() + kPatience;
  while (true) {
    grpc::ClientContext context;
    context.set_deadline(system_clock::now() + kDeadline);
    grpc::Status status = stub.Enqueue(&context, request, &response);
    if (status.ok() || !IsWorthRepeating(status, context) || steady_clock::now() > give_up_at) return status;
    std::cerr << "producer: trying again; " << Explain(status) << "\n";
    std::this_thread::sleep_for(kPause);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2 && argc != 3) {
    std::cerr << "usage: producer QUEUE [NAME]\n";
    return 2;
  }
  const std::string name = argc == 3 ? argv[2] : RandomName();
  const auto channel = Connect("producer");
  if (channel == nullptr) return 1;
  const auto stub = MessageService::NewStub(channel);
  EnqueueRequest request;
  request.set_queue(argv[1]);
  std::int64_t count = 0;
  std::string line;
  std::getline(std::cin, line);
  for (int number = 0; NextBatch(line, request); ++number) {
    request.set_request_id(name + "-" + std::to_string(number));
    EnqueueResponse response;
    const grpc::Status status = Enqueue(*stub, request, response);
    if (!status.ok()) {
      std::cerr << "producer: " << Explain(status) << "\n";
      return 1;
    }
    count += response.message_ids_size();
  }
  std::cout << count << " messages enqueued\n";
}
