#include "service/call_metrics.h"

#include <google/protobuf/descriptor.h>

#include <cstdio>
#include <cstdlib>

namespace postkeeper {
namespace {

std::string TypeOf(const google::protobuf::MethodDescriptor& method) {
  if (method.client_streaming()) return method.server_streaming() ? "bidi_stream" : "client_stream";
  return method.server_streaming() ? "server_stream" : "unary";
}

}  // namespace

CallMetrics::CallMetrics(Metrics& metrics, std::initializer_list<std::string_view> services) {
  for (const std::string_view name : services) {
    const google::protobuf::ServiceDescriptor* service =
        google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(std::string(name));
    if (service == nullptr) {
      std::fprintf(stderr, "postkeeperd: the descriptor of %s is not linked in\n", std::string(name).c_str());
      std::abort();
    }
    Service& counted = services_[std::string(name)];
    for (int i = 0; i < service->method_count(); ++i) {
      const google::protobuf::MethodDescriptor& method = *service->method(i);
      counted.methods_.emplace(method.name(),
                               &metrics.ForMethod({TypeOf(method), service->full_name(), method.name()}));
    }
  }
}

}  // namespace postkeeper
