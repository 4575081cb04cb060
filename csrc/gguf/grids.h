// The grids of the IQ types: lists of points. A block stores the index of one point for every 8 (or
// 4) elements.
#pragma once

#include <cstdint>

namespace gemtp {

template <int kPoints, int kDims>
struct Grid {
  int8_t point[kPoints][kDims];
};

extern const Grid<256, 8> kGridIq2Xxs;  // values 8, 25, 43
extern const Grid<512, 8> kGridIq2Xs;   // values 8, 25, 43
extern const Grid<1024, 8> kGridIq2S;   // values 8, 25, 43
extern const Grid<256, 4> kGridIq3Xxs;  // values 4, 12, 20, 28, 36, 44, 52, 62
extern const Grid<512, 4> kGridIq3S;    // values 1, 3, 5, 7, 9, 11, 13, 15
extern const Grid<2048, 8> kGridIq1;    // values -8, 0, 8: eighths of the format's -1, 0, 1

}  // namespace gemtp
