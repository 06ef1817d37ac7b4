#include "bench/service_client.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <utility>

#include "postkeeper/v1/admin.grpc.pb.h"
#include "zkstore/text.h"

namespace postkeeper::bench {
namespace {

constexpr std::int64_t kMessagesMax = 100'000'000;
constexpr std::int64_t kBytesMax = std::int64_t{1} << 30;

std::string MakeName() {
  static std::atomic<int> count = 0;
  return Cat("bench-", getpid(), "-", ++count);
}

template <typename Request, typename Response>
absl::Status Call(v1::AdminService::Stub& stub,
                  grpc::Status (v1::AdminService::Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                  const Request& request, std::string_view what) {
  grpc::ClientContext context;
  SetDeadline(context, kCallTimeout);
  Response response;
  return ToStatus((stub.*method)(&context, request, &response), what);
}

}  // namespace

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

absl::Status WaitUntilReachable(const std::string& address, std::chrono::seconds timeout) {
  if (MakeChannel(address)->WaitForConnected(std::chrono::system_clock::now() + timeout)) return absl::OkStatus();
  return absl::UnavailableError(Cat("nobody answers at ", address, ". Start postkeeperd, or name it: --address"));
}

void SetDeadline(grpc::ClientContext& context, std::chrono::system_clock::duration timeout) {
  context.set_deadline(std::chrono::system_clock::now() + timeout);
}

absl::Status ToStatus(const grpc::Status& status, std::string_view what) {
  if (status.ok()) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), Cat(what, ": ", status.error_message()));
}

std::string MakeBody(int size) {
  std::string body;
  body.reserve(static_cast<std::size_t>(size));
  // A linear congruential generator's upper bits: letters that no compressor makes small.
  std::uint32_t state = 1;
  while (body.size() < static_cast<std::size_t>(size)) {
    state = state * 1'664'525 + 1'013'904'223;
    body.push_back(static_cast<char>('a' + (state >> 24) % 26));
  }
  return body;
}

absl::StatusOr<std::unique_ptr<ScratchLog>> ScratchLog::Make(const std::string& address, Kind kind) {
  std::unique_ptr<ScratchLog> log(new ScratchLog(MakeChannel(address), kind, MakeName()));
  v1::AdminService::Stub stub(log->channel_);
  absl::Status status;
  if (kind == Kind::kQueue) {
    v1::CreateQueueRequest request;
    request.mutable_queue()->set_name(log->name_);
    request.mutable_queue()->set_max_messages(kMessagesMax);
    request.mutable_queue()->set_max_bytes(kBytesMax);
    status = Call(stub, &v1::AdminService::Stub::CreateQueue, request, "CreateQueue");
  } else {
    v1::CreateTopicRequest request;
    request.mutable_topic()->set_name(log->name_);
    status = Call(stub, &v1::AdminService::Stub::CreateTopic, request, "CreateTopic");
  }
  if (!status.ok()) return status;
  return log;
}

ScratchLog::ScratchLog(std::shared_ptr<grpc::Channel> channel, Kind kind, std::string name)
    : channel_(std::move(channel)), kind_(kind), name_(std::move(name)) {}

ScratchLog::~ScratchLog() {
  v1::AdminService::Stub stub(channel_);
  absl::Status status;
  if (kind_ == Kind::kQueue) {
    // Purged first: a deleted queue's messages go in the background, which the next measurement would feel.
    v1::PurgeQueueRequest purge;
    purge.set_name(name_);
    purge.set_leased_too(true);
    status = Call(stub, &v1::AdminService::Stub::PurgeQueue, purge, "PurgeQueue");
    v1::DeleteQueueRequest request;
    request.set_name(name_);
    request.set_allow_missing(true);
    status.Update(Call(stub, &v1::AdminService::Stub::DeleteQueue, request, "DeleteQueue"));
  } else {
    v1::DeleteTopicRequest request;
    request.set_name(name_);
    request.set_allow_missing(true);
    status = Call(stub, &v1::AdminService::Stub::DeleteTopic, request, "DeleteTopic");
  }
  if (!status.ok()) std::fprintf(stderr, "%s is left: %s\n", name_.c_str(), status.ToString().c_str());
}

}  // namespace postkeeper::bench
