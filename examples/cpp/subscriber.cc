// Prints what is published on a topic and remembers how far it got: subscriber TOPIC POSITION_FILE
//
// Started again with the same file it goes on behind the last message it printed: none is missed, and only what was
// printed but not yet noted (a crash between the two) comes again. Without the file it begins at the oldest message
// kept. It can be ended at any moment, also with kill -9.
#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <string>
#include <thread>

#include "connection.h"
#include "postkeeper/v1/message.grpc.pb.h"

namespace {

using postkeeper::v1::MessageService;
using postkeeper::v1::SubscribeRequest;
using postkeeper::v1::SubscribeResponse;
using postkeeper::v1::TopicMessage;

constexpr std::chrono::seconds kReopenAfter{1};

// The work on one message.
void Handle(const TopicMessage& message) { std::cout << message.message().body() << std::endl; }

std::string ReadPosition(const std::string& file) {
  std::string position;
  std::ifstream(file) >> position;
  return position;
}

// A crash leaves the old position or the new one, whole.
void WritePosition(const std::string& file, const std::string& position) {
  const std::string fresh = file + ".new";
  const std::string line = position + "\n";
  const int out = open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  const bool is_written = out >= 0 && write(out, line.data(), line.size()) == static_cast<ssize_t>(line.size()) &&
                          fsync(out) == 0 && close(out) == 0 && std::rename(fresh.c_str(), file.c_str()) == 0;
  if (is_written) return;
  std::perror(("subscriber: " + file).c_str());
  std::exit(1);
}

// One stream, until it breaks.
grpc::Status Subscribe(MessageService::Stub& stub, const std::string& topic, const std::string& file,
                       grpc::ClientContext& context) {
  std::string position = ReadPosition(file);
  SubscribeRequest request;
  request.set_topic(topic);
  request.set_subscriber("cpp-subscriber");
  if (position.empty()) {
    request.mutable_start()->set_earliest(true);
  } else {
    request.mutable_start()->set_after(position);
  }
  const auto stream = stub.Subscribe(&context, request);
  SubscribeResponse response;
  while (stream->Read(&response)) {
    for (const TopicMessage& message : response.messages()) Handle(message);
    if (response.position().empty() || response.position() == position) continue;
    position = response.position();
    WritePosition(file, position);
  }
  return stream->Finish();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: subscriber TOPIC POSITION_FILE\n";
    return 2;
  }
  const auto channel = Connect("subscriber");
  if (channel == nullptr) return 1;
  const auto stub = MessageService::NewStub(channel);
  while (true) {
    grpc::ClientContext context;  // no deadline: it lives as long as the subscriber. Pings notice a dead server.
    const grpc::Status status = Subscribe(*stub, argv[1], argv[2], context);
    if (!status.ok() && !IsWorthRepeating(status, context)) {
      std::cerr << "subscriber: " << Explain(status);
      const bool is_position_lost = status.error_code() == grpc::StatusCode::OUT_OF_RANGE ||
                                    status.error_code() == grpc::StatusCode::FAILED_PRECONDITION;
      if (is_position_lost) std::cerr << ". To begin again at the oldest message kept: rm " << argv[2];
      std::cerr << "\n";
      return 1;
    }
    if (!status.ok()) std::cerr << "subscriber: opening a new stream; " << Explain(status) << "\n";
    std::this_thread::sleep_for(kReopenAfter);
  }
}
