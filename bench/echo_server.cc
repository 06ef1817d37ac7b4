#include "bench/echo_server.h"

#include <fcntl.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <iostream>

#include "absl/synchronization/mutex.h"
#include "postkeeper/v1/message.grpc.pb.h"
#include "zkstore/text.h"
#include "zkstore/text_id.h"

namespace postkeeper::bench {
namespace {

class EchoService final : public v1::MessageService::WithRawCallbackMethod_Enqueue<v1::MessageService::Service> {
 public:
  EchoService() {
    v1::EnqueueResponse response;
    response.add_message_ids(EncodeMessageId({}));
    const grpc::Slice bytes(response.SerializeAsString());
    answer_ = grpc::ByteBuffer(&bytes, 1);
  }

  grpc::ServerUnaryReactor* Enqueue(grpc::CallbackServerContext* context, const grpc::ByteBuffer*,
                                    grpc::ByteBuffer* response) override {
    *response = answer_;
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

 private:
  grpc::ByteBuffer answer_;
};

absl::Status SystemError(std::string_view what, int error) {
  return absl::InternalError(Cat(what, ": ", std::strerror(error)));
}

// Both ends close in programs that are started later.
struct Pipe {
  std::array<int, 2> fds{-1, -1};
  bool Open() { return pipe2(fds.data(), O_CLOEXEC) == 0; }
};

std::string ReadLine(int fd) {
  std::string line;
  char c = 0;
  while (read(fd, &c, 1) == 1 && c != '\n') line.push_back(c);
  return line;
}

}  // namespace

int RunEchoServer() {
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);  // as postkeeperd does
  EchoService service;
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || port == 0) {
    std::cerr << "no port on 127.0.0.1 can be listened on\n";
    return 1;
  }
  std::cout << port << std::endl;
  while (std::cin.get() != std::char_traits<char>::eof()) {
  }
  server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
  return 0;
}

absl::StatusOr<std::unique_ptr<EchoProcess>> EchoProcess::Start() {
  Pipe in, out;
  if (!in.Open() || !out.Open()) return SystemError("pipe", errno);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in.fds[0], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, out.fds[1], STDOUT_FILENO);
  std::string name = "postkeeper_bench", flag = kEchoServerFlag;
  char* arguments[] = {name.data(), flag.data(), nullptr};
  pid_t pid = -1;
  const int error = posix_spawn(&pid, "/proc/self/exe", &actions, nullptr, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  close(in.fds[0]);
  close(out.fds[1]);
  if (error != 0) {
    close(in.fds[1]);
    close(out.fds[0]);
    return SystemError("cannot start the echo server", error);
  }
  std::unique_ptr<EchoProcess> process(new EchoProcess(pid, in.fds[1]));
  const std::string port = ReadLine(out.fds[0]);
  close(out.fds[0]);
  if (port.empty()) return absl::InternalError("the echo server did not start");
  process->address_ = Cat("127.0.0.1:", port);
  return process;
}

EchoProcess::~EchoProcess() {
  close(stdin_fd_);
  waitpid(pid_, nullptr, 0);
}

}  // namespace postkeeper::bench
