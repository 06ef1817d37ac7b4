// Precompiled for all tests.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "zkstore/zkstore_pch.h"
