# The three versions that count apart, each read from its one home: the product's, the API's and the store's.

# read_line(VARIABLE FILE EXPRESSION): what the expression's group holds, in the one line of the file that matches.
function(read_line variable file expression)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${file})
  file(STRINGS ${CMAKE_SOURCE_DIR}/${file} lines REGEX "${expression}")
  list(LENGTH lines count)
  if(NOT count EQUAL 1)
    message(FATAL_ERROR "${file}: ${count} lines match ${expression}; there has to be one")
  endif()
  string(REGEX MATCH "${expression}" line "${lines}")
  set(${variable} "${CMAKE_MATCH_1}" PARENT_SCOPE)
endfunction()

read_line(POSTKEEPER_VERSION VERSION "^([0-9]+\\.[0-9]+\\.[0-9]+)$")
read_line(POSTKEEPER_API_VERSION protos/postkeeper/v1/message.proto "^package ([a-z0-9.]+)")
read_line(POSTKEEPER_STORE_FORMAT zkstore/layout.h "constexpr int kFormatVersion = ([0-9]+)")
