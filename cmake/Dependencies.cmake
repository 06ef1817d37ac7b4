# Everything comes from Debian 12; cmake/debian-packages.txt is the list.
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
find_package(Protobuf REQUIRED)
find_package(gRPC CONFIG REQUIRED)
find_package(absl CONFIG REQUIRED)
find_package(ZLIB REQUIRED)
find_package(spdlog CONFIG REQUIRED)
find_package(prometheus-cpp CONFIG REQUIRED)
find_program(PROTOC protoc REQUIRED)
find_program(GRPC_CPP_PLUGIN grpc_cpp_plugin REQUIRED)
find_path(ZOOKEEPER_INCLUDE_DIR zookeeper/zookeeper.h REQUIRED)
find_library(ZOOKEEPER_LIBRARY zookeeper_mt REQUIRED)
find_library(XXHASH_LIBRARY xxhash REQUIRED)
find_library(JEMALLOC_LIBRARY jemalloc REQUIRED)

add_library(zookeeper_client INTERFACE)
target_include_directories(zookeeper_client SYSTEM INTERFACE ${ZOOKEEPER_INCLUDE_DIR})
target_compile_definitions(zookeeper_client INTERFACE THREADED)
target_link_libraries(zookeeper_client INTERFACE ${ZOOKEEPER_LIBRARY} Threads::Threads)

# Standalone Asio, its bodies compiled once.
file(WRITE ${CMAKE_BINARY_DIR}/asio_bodies.cc "#include <asio/impl/src.hpp>\n")
add_library(postkeeper_asio STATIC ${CMAKE_BINARY_DIR}/asio_bodies.cc)
# Asio 1.22 takes aligned_alloc where a header of the standard library came before its own, and operator new elsewhere;
# a block that one file allocates and another frees must not depend on that.
target_compile_definitions(postkeeper_asio PUBLIC ASIO_STANDALONE ASIO_SEPARATE_COMPILATION ASIO_NO_DEPRECATED
                           ASIO_DISABLE_STD_ALIGNED_ALLOC)
target_link_libraries(postkeeper_asio PUBLIC Threads::Threads)
