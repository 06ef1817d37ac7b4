#include "zkstore/client.h"

#include <asio/associated_executor.hpp>
#include <asio/async_result.hpp>
#include <asio/post.hpp>

namespace postkeeper::zk {

std::string_view CodeName(Code code) {
  switch (code) {
    case Code::kOk:
      return "OK";
    case Code::kNoNode:
      return "NO_NODE";
    case Code::kNodeExists:
      return "NODE_EXISTS";
    case Code::kBadVersion:
      return "BAD_VERSION";
    case Code::kNotEmpty:
      return "NOT_EMPTY";
    case Code::kNoChildrenForEphemerals:
      return "NO_CHILDREN_FOR_EPHEMERALS";
    case Code::kBadArguments:
      return "BAD_ARGUMENTS";
    case Code::kNoAuth:
      return "NO_AUTH";
    case Code::kInvalidAcl:
      return "INVALID_ACL";
    case Code::kRuntimeInconsistency:
      return "RUNTIME_INCONSISTENCY";
    case Code::kRolledBack:
      return "ROLLED_BACK";
    case Code::kThrottled:
      return "THROTTLED";
    case Code::kSessionMoved:
      return "SESSION_MOVED";
    case Code::kTooLarge:
      return "TOO_LARGE";
    case Code::kNotConnected:
      return "NOT_CONNECTED";
    case Code::kOtherDefinite:
      return "OTHER";
    case Code::kConnectionLoss:
      return "CONNECTION_LOSS";
    case Code::kTimeout:
      return "TIMEOUT";
    case Code::kSessionExpired:
      return "SESSION_EXPIRED";
    case Code::kClosed:
      return "CLOSED";
  }
  return "UNKNOWN";
}

bool IsDefinite(Code code) {
  switch (code) {
    case Code::kConnectionLoss:
    case Code::kTimeout:
    case Code::kSessionExpired:
    case Code::kClosed:
      return false;
    default:
      return true;
  }
}

Op Op::Create(std::string path, std::string data, CreateMode mode) {
  return {.kind = Kind::kCreate, .path = std::move(path), .data = std::move(data), .mode = mode};
}

Op Op::Set(std::string path, std::string data, std::int32_t version) {
  return {.kind = Kind::kSet, .path = std::move(path), .data = std::move(data), .version = version};
}

Op Op::Delete(std::string path, std::int32_t version) {
  return {.kind = Kind::kDelete, .path = std::move(path), .data = {}, .version = version};
}

Op Op::Check(std::string path, std::int32_t version) {
  return {.kind = Kind::kCheck, .path = std::move(path), .data = {}, .version = version};
}

std::size_t WireBytes(const Request& request) {
  // Jute: a request header of 8 bytes behind a length of 4; strings and buffers carry a length of 4; an operation of a
  // multi has a header of 9 bytes; an ACL of one entry (world:anyone) takes 27 bytes; flags and versions 4 each.
  constexpr std::size_t kHeader = 12;
  constexpr std::size_t kPerOp = 9 + 4 + 4 + 27 + 4;
  std::size_t bytes = kHeader + kPerOp + request.path.size() + request.data.size();
  for (const Op& op : request.ops) bytes += kPerOp + op.path.size() + op.data.size();
  return bytes;
}

Task<Response> Client::Call(Request request) {
  return asio::async_initiate<const asio::use_awaitable_t<>, void(Response)>(
      [this](auto handler, Request submitted) {
        auto executor = asio::get_associated_executor(handler);
        Submit(std::move(submitted), [executor, handler = std::move(handler)](Response response) mutable {
          asio::post(executor, [handler = std::move(handler), response = std::move(response)]() mutable {
            std::move(handler)(std::move(response));
          });
        });
      },
      asio::use_awaitable, std::move(request));
}

Task<Response> Client::Create(std::string path, std::string data, CreateMode mode) {
  return Call({.kind = Request::Kind::kCreate, .path = std::move(path), .data = std::move(data), .mode = mode});
}

Task<Response> Client::Get(std::string path, Watcher watcher) {
  return Call({.kind = Request::Kind::kGet, .path = std::move(path), .watcher = std::move(watcher)});
}

Task<Response> Client::Set(std::string path, std::string data, std::int32_t version) {
  return Call({.kind = Request::Kind::kSet, .path = std::move(path), .data = std::move(data), .version = version});
}

Task<Response> Client::Delete(std::string path, std::int32_t version) {
  return Call({.kind = Request::Kind::kDelete, .path = std::move(path), .version = version});
}

Task<Response> Client::Exists(std::string path, Watcher watcher) {
  return Call({.kind = Request::Kind::kExists, .path = std::move(path), .watcher = std::move(watcher)});
}

Task<Response> Client::Children(std::string path, Watcher watcher) {
  return Call({.kind = Request::Kind::kChildren, .path = std::move(path), .watcher = std::move(watcher)});
}

Task<Response> Client::Multi(std::vector<Op> ops, Priority priority) {
  return Call({.kind = Request::Kind::kMulti, .ops = std::move(ops), .priority = priority});
}

Task<Response> Client::Sync(std::string path) { return Call({.kind = Request::Kind::kSync, .path = std::move(path)}); }

}  // namespace postkeeper::zk
