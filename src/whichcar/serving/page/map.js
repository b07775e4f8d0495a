// The map of what speaks for an answer: colours over the photo, and words.

const COLOURS = [[60, 0, 130], [225, 50, 70], [255, 235, 90]]; // from little to much
const OPACITY = 0.75;
const SIDE = 96; // pixels, between which the browser interpolates

// Returns a canvas that is coloured where places, in rows, are positive.
export function heatMap(places) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIDE;
  const context = canvas.getContext("2d");
  const image = context.createImageData(SIDE, SIDE);
  const most = Math.max(...places.flat(), 1e-12);
  for (let y = 0; y < SIDE; y += 1) {
    for (let x = 0; x < SIDE; x += 1) {
      const share = Math.max(0, between(places, x, y) / most);
      const step = share * (COLOURS.length - 1);
      const [below, above] = [COLOURS[Math.floor(step)], COLOURS[Math.ceil(step)]];
      const colour = below.map((value, channel) => value + (above[channel] - value) * (step % 1));
      image.data.set([...colour, 255 * OPACITY * Math.sqrt(share)], 4 * (y * SIDE + x));
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

// Returns the value at a pixel, interpolated between the centres of the places around it.
function between(places, x, y) {
  const [row, below, down] = neighbours(y, places.length);
  const [column, right, across] = neighbours(x, places[0].length);
  const above = places[row][column] * (1 - across) + places[row][right] * across;
  return above * (1 - down) + (places[below][column] * (1 - across) + places[below][right] * across) * down;
}

function neighbours(pixel, count) {
  const place = Math.min(count - 1, Math.max(0, ((pixel + 0.5) * count) / SIDE - 0.5));
  const first = Math.floor(place);
  return [first, Math.min(count - 1, first + 1), place - first];
}

// Says in which ninth of the frame the positive places add most.
export function where(places) {
  const sums = new Array(9).fill(0);
  places.forEach((line, row) => {
    line.forEach((value, column) => {
      const third = (place, count) => Math.floor((3 * (place + 0.5)) / count);
      sums[3 * third(row, places.length) + third(column, line.length)] += Math.max(0, value);
    });
  });
  const best = sums.indexOf(Math.max(...sums));
  const [down, across] = [["upper", "", "lower"][Math.floor(best / 3)], ["left", "", "right"][best % 3]];
  if (!down && !across) return "in the centre";
  return down && across ? `at the ${down} ${across}` : `in the ${down || across} part`;
}
