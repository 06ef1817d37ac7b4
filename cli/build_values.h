// What the build puts into the program.
#ifndef POSTKEEPER_CLI_BUILD_VALUES_H_
#define POSTKEEPER_CLI_BUILD_VALUES_H_

namespace postkeeper::cli {

// The one in the file VERSION.
extern const char kVersion[];
// The package of the protos that the program speaks.
extern const char kApiVersion[];
// The stored format of the postkeeperd built from the same sources.
extern const int kStoreFormat;
// protos/postkeeper/v1/service_config.json, word for word.
extern const char kServiceConfig[];

}  // namespace postkeeper::cli

#endif  // POSTKEEPER_CLI_BUILD_VALUES_H_
