# How our own code is compiled: C++20, warnings are errors, mold and ccache where they are installed.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE OFF)

find_program(CCACHE ccache)
if(CCACHE)
  # Paths in the project count as relative, so that one clone's build serves the next; without the sloppiness ccache
  # refuses every file that uses a precompiled header.
  set(CMAKE_CXX_COMPILER_LAUNCHER
      ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1
      CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${CCACHE})
  add_compile_options(-fpch-preprocess -ffile-prefix-map=${CMAKE_SOURCE_DIR}=.)
endif()
find_program(MOLD mold)
if(MOLD)
  add_link_options(-fuse-ld=mold)
endif()

# Compile options for our own targets; generated code and libraries are not held to them.
add_library(postkeeper_options INTERFACE)
target_compile_options(postkeeper_options INTERFACE -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Werror)
target_include_directories(postkeeper_options INTERFACE ${CMAKE_SOURCE_DIR})
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # gcc 12 reports these inside the standard library and for coroutine frames, where nothing is wrong
  # (gcc bugs 105329, 105651, 101361 and 109224).
  target_compile_options(postkeeper_options INTERFACE -Wno-restrict -Wno-maybe-uninitialized
                         -Wno-missing-field-initializers -Wno-mismatched-new-delete)
endif()

# A static library of every .cc file in the current folder that is not a test or a program's main.
function(add_room name)
  file(GLOB sources CONFIGURE_DEPENDS *.cc)
  list(FILTER sources EXCLUDE REGEX "_(test|main)\\.cc$")
  foreach(excluded IN LISTS ARGN)
    list(REMOVE_ITEM sources ${CMAKE_CURRENT_SOURCE_DIR}/${excluded})
  endforeach()
  if(NOT sources)
    file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/empty.cc "")
    set(sources ${CMAKE_CURRENT_BINARY_DIR}/empty.cc)
  endif()
  add_library(${name} STATIC ${sources})
  target_link_libraries(${name} PUBLIC postkeeper_options)
endfunction()
