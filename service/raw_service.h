// A gRPC service all of whose methods take and give bytes.
#ifndef POSTKEEPER_SERVICE_RAW_SERVICE_H_
#define POSTKEEPER_SERVICE_RAW_SERVICE_H_

namespace postkeeper {

// Puts gRPC's generated wrappers WithRawCallbackMethod_X around a generated service, one around the other. gRPC's own
// parsing is passed by, since it answers bytes that are no such request with an empty UNIMPLEMENTED.
template <typename Service, template <typename> typename... Wrappers>
struct RawService;

template <typename Service>
struct RawService<Service> {
  using Type = Service;
};

template <typename Service, template <typename> typename First, template <typename> typename... Rest>
struct RawService<Service, First, Rest...> {
  using Type = First<typename RawService<Service, Rest...>::Type>;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_RAW_SERVICE_H_
