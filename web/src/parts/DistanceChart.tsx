// Mean attention distance: layers from left to right, a dot for each head.
import { useTranslation } from "react-i18next";
import { number } from "../logic/text";

const WIDTH = 480;
const HEIGHT = 220;
const EDGE = { left: 44, right: 12, top: 10, bottom: 26 };

export function DistanceChart({ distance, caption }: { distance: number[][]; caption: string }) {
  const { i18n } = useTranslation();
  const top = Math.max(...distance.flat(), 1e-9) * 1.05;
  const x = (layer: number) => EDGE.left + ((layer + 0.5) / distance.length) * (WIDTH - EDGE.left - EDGE.right);
  const y = (value: number) => HEIGHT - EDGE.bottom - (value / top) * (HEIGHT - EDGE.top - EDGE.bottom);
  const marks = [0, top / 2, top];
  return (
    <figure>
      <svg className="chart" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={caption}>
        {marks.map((value) => (
          <g key={value}>
            <line x1={EDGE.left} x2={WIDTH - EDGE.right} y1={y(value)} y2={y(value)} />
            <text x={EDGE.left - 8} y={y(value) + 4} textAnchor="end">
              {number(value, i18n.language, 2)}
            </text>
          </g>
        ))}
        {distance.map((heads, layer) => (
          <g key={layer}>
            <text x={x(layer)} y={HEIGHT - 8} textAnchor="middle">
              {layer}
            </text>
            {heads.map((value, head) => (
              <circle key={head} cx={x(layer)} cy={y(value)} r={4} />
            ))}
          </g>
        ))}
      </svg>
      <figcaption className="quiet small">{caption}</figcaption>
    </figure>
  );
}
